//! What a fleet migration costs: each tenant's database changed by one ALTER, against the bare statements, and against
//! `sea-orm-migration` run over the tenants one after the other.

use std::time::{Duration, Instant};

use end_to_end::bed::{Bed, Store};
use futures_util::StreamExt as _;
use futures_util::stream;
use sea_orm::sqlx::sqlite::SqliteJournalMode;
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, Statement};
use sea_orm_migration::prelude::{
    Alias, ColumnDef, DbErr, MigrationName, MigrationTrait, MigratorTrait, SchemaManager, Table,
};
use serde_json::json;

use crate::Effort;
use crate::report::{Report, median};

/// How many databases are changed at once by bare statements: the best is what Freehold is compared with.
const AT_ONCE: [usize; 4] = [2, 4, 8, 16];

/// How long a rollout may take.
const PATIENCE: Duration = Duration::from_mins(5);

/// The tenants' databases as whoever has their login reaches them, without Freehold.
struct Databases {
    urls: Vec<String>,
    store: Store,
}

impl Databases {
    async fn of(bed: &Bed) -> Self {
        let registry = bed.registry().await;
        let names = Statement::from_string(registry.get_database_backend(), "SELECT name FROM databases ORDER BY name");
        let rows = registry.query_all_raw(names).await.unwrap();
        let name = |row: &sea_orm::QueryResult| row.try_get_by_index::<String>(0).unwrap();
        let urls = rows.iter().map(name).map(|name| match bed.store {
            Store::Postgres => {
                let admin = std::env::var("FREEHOLD_TEST_POSTGRES_URL").unwrap();
                format!("{}/{name}", admin.rsplit_once('/').unwrap().0)
            }
            Store::Sqlite => {
                format!("sqlite://{}", bed.folder.path().join("tenants").join(name).join("database.db").display())
            }
        });
        let urls = urls.collect();
        registry.close().await.unwrap();
        Self { urls, store: bed.store }
    }

    /// One connection, as Freehold makes it.
    async fn connect(&self, url: &str) -> DatabaseConnection {
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).sqlx_logging(false);
        match self.store {
            Store::Postgres => options.map_sqlx_postgres_opts(|options| options.options([("role", "freehold_owner")])),
            Store::Sqlite => options.map_sqlx_sqlite_opts(|options| {
                options.journal_mode(SqliteJournalMode::Wal).busy_timeout(Duration::from_secs(5)).foreign_keys(true)
            }),
        };
        Database::connect(options).await.unwrap()
    }

    /// One statement in each of so many, so many at once; answers how many a second.
    async fn run(&self, sql: &str, count: usize, at_once: usize) -> f64 {
        let begun = Instant::now();
        stream::iter(self.urls.iter().take(count))
            .for_each_concurrent(at_once, |url| async move {
                let db = self.connect(url).await;
                db.execute_unprepared(sql).await.unwrap();
                db.close().await.unwrap();
            })
            .await;
        per_second(count.min(self.urls.len()), begun.elapsed())
    }
}

/// What a product without Freehold would run over its tenants.
struct Loop;

struct AddColumn;

impl MigrationName for AddColumn {
    fn name(&self) -> &'static str {
        "add_column"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for AddColumn {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = ColumnDef::new(Alias::new("by_loop")).text().to_owned();
        manager.alter_table(Table::alter().table(Alias::new("pets")).add_column(column).to_owned()).await
    }
}

#[async_trait::async_trait]
impl MigratorTrait for Loop {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(AddColumn)]
    }
}

#[allow(clippy::cast_precision_loss, reason = "a count of tenants")]
fn per_second(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// A fleet of so many tenants at version 1.
async fn fleet(store: Store, tenants: usize) -> Bed {
    let bed = Bed::start(store, 1, 0).await;
    let registry = bed.registry().await;
    registry.execute_unprepared("UPDATE history SET schema_version = 1").await.unwrap();
    registry.close().await.unwrap();
    bed.done("PATCH", "/v1/servers/local", Some(json!({ "capacity": 200_000, "warm": 0 }))).await;
    stream::iter(0..tenants)
        .for_each_concurrent(16, |number| {
            let bed = &bed;
            async move {
                let slug = format!("tenant-{number}");
                let made = bed
                    .operator("POST", "/v1/tenants", Some(json!({ "slug": slug, "name": slug, "plan": "test" })))
                    .await;
                assert_eq!(made.status, 201, "{made:?}");
            }
        })
        .await;
    eprintln!("{tenants} tenants are there");
    bed
}

/// Rolls out, and answers how long that took.
async fn roll(bed: &Bed, version: u32, is_down: bool) -> Duration {
    let settings = json!({ "canary": 0, "waves": [], "concurrency": 16, "per_server": 16 });
    let order = json!({ "version": version, "down": is_down, "settings": settings });
    let begun = Instant::now();
    let rollout = bed.done("POST", "/v1/rollouts", Some(order)).await;
    let id = rollout["id"].as_str().unwrap();
    let ended = bed.until_rollout_within(PATIENCE, id, |now| now["state"] != "running").await;
    assert_eq!((&ended["state"], &ended["counts"]["failed"]), (&json!("done"), &json!(0)), "{ended}");
    begun.elapsed()
}

pub(crate) async fn measure(effort: Effort) -> Report {
    let mut report = Report::new("fleet");
    Box::pin(one_alter_each(&mut report, Store::Postgres, effort.either(1_000, 50), effort)).await;
    Box::pin(one_alter_each(&mut report, Store::Sqlite, effort.either(10_000, 100), effort)).await;
    Box::pin(nothing_to_do(&mut report, effort)).await;
    Box::pin(memory(&mut report, effort)).await;
    report
}

async fn one_alter_each(report: &mut Report, store: Store, tenants: usize, effort: Effort) {
    let bed = fleet(store, tenants).await;
    let databases = Databases::of(&bed).await;
    assert_eq!(databases.urls.len(), tenants, "each has its database");
    let mut best = (0, 0.0);
    for at_once in AT_ONCE {
        let column = format!("ALTER TABLE pets ADD COLUMN tried_{at_once} TEXT");
        let rate = databases.run(&column, tenants / 4, at_once).await;
        eprintln!("{store:?}: bare statements, {at_once} at once: {rate:.0} a second");
        if rate > best.1 {
            best = (at_once, rate);
        }
    }
    // Interleaved, each first in its turn: up adds a column, and down, for the next round, drops it.
    let [mut up, mut down] = [Vec::new(), Vec::new()];
    for round in 0..effort.either(3, 1) {
        let add = format!("ALTER TABLE pets ADD COLUMN round_{round} TEXT");
        let drop = format!("ALTER TABLE pets DROP COLUMN round_{round}");
        for (sql, version, is_down, rates) in [(add, 2, false, &mut up), (drop, 1, true, &mut down)] {
            let ours = async { per_second(tenants, roll(&bed, version, is_down).await) };
            let bare = databases.run(&sql, tenants, best.0);
            let (ours, bare) = if round % 2 == 0 {
                let bare = bare.await;
                (ours.await, bare)
            } else {
                (ours.await, bare.await)
            };
            eprintln!("{store:?}: round {round}: {ours:.0} a second, {bare:.0} by the bare statement {sql}");
            rates.push((ours, bare));
        }
    }
    let medians = |rates: &[(f64, f64)]| {
        let of = |pick: fn(&(f64, f64)) -> f64| median(&rates.iter().map(pick).collect::<Vec<_>>());
        (of(|rate| rate.0), of(|rate| rate.1), of(|rate| rate.0 / rate.1))
    };
    let (ours, bare, ratio) = medians(&up);
    let case = format!("{store:?}, {tenants} tenants, one ALTER each, against bare statements");
    report.at_least_ratio(&case, ("throughput", "tenants/s"), (ours, bare, ratio), 0.7);
    // Data planes are told before each, and waited for.
    let (taken_back, bare, _) = medians(&down);
    let case = format!("{store:?}, {tenants} tenants, it is taken back, against bare statements");
    report.compared(&case, ("throughput", "tenants/s"), taken_back, bare, None);
    if store == Store::Postgres {
        let count = tenants / 5;
        let begun = Instant::now();
        for url in databases.urls.iter().take(count) {
            let db = databases.connect(url).await;
            Loop::up(&db, None).await.unwrap();
            db.close().await.unwrap();
        }
        let serial = per_second(count, begun.elapsed());
        let case = format!("{store:?}, {tenants} tenants, one ALTER each, against sea-orm-migration in a loop");
        report.compared(&case, ("throughput", "tenants/s"), ours, serial, Some(2.0));
    }
}

/// Tenants that are in the registry alone: whoever tried to enter a database of theirs would fail.
async fn plant(bed: &Bed, count: usize, version: u32) {
    let registry = bed.registry().await;
    for part in (0..count).collect::<Vec<_>>().chunks(1_000) {
        let rows: Vec<String> = part
            .iter()
            .map(|number| {
                let id = uuid::Uuid::now_v7();
                format!(
                    "('{id}', 'planted-{number}', 'Planted', 'suspended', 'free', {version}, 1, 0, 1, now(), now())"
                )
            })
            .collect();
        let insert = format!(
            "INSERT INTO tenants (id, slug, name, status, plan, schema_version, generation, revision, version, created_at, \
             updated_at) VALUES {}",
            rows.join(", ")
        );
        registry.execute_unprepared(&insert).await.unwrap();
    }
    registry.close().await.unwrap();
}

async fn nothing_to_do(report: &mut Report, effort: Effort) {
    let tenants = effort.either(10_000, 1_000);
    let bed = Bed::start(Store::Postgres, 1, 0).await;
    plant(&bed, tenants, 2).await;
    let took = roll(&bed, 2, true).await;
    report.at_most(&format!("nothing to do for {tenants} tenants"), ("time", "s"), took.as_secs_f64(), Some(2.0));
}

/// The most that the control plane had in memory while it planned and worked through so many targets.
async fn memory(report: &mut Report, effort: Effort) {
    let tenants = effort.either(100_000, 5_000);
    let bed = Bed::start(Store::Postgres, 1, 0).await;
    let before = peak(&bed);
    plant(&bed, tenants, 1).await;
    let order = json!({ "version": 3, "settings": { "canary": 0 } });
    let rollout = bed.done("POST", "/v1/rollouts", Some(order)).await;
    let id = rollout["id"].as_str().unwrap();
    // Far enough into it: a wave has ended, and the next is at work.
    bed.until_rollout_within(PATIENCE, id, |now| now["wave"].as_u64() > Some(1)).await;
    let after = peak(&bed);
    eprintln!("{before:.0} MB before, {after:.0} MB at most with {tenants} targets");
    report.at_most(&format!("{tenants} pending targets"), ("memory", "MB"), after, Some(100.0));
}

/// The peak resident memory of the control plane, in MB.
fn peak(bed: &Bed) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bed.control[0].id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1_024.0
}
