//! What a fleet migration costs: each tenant's database changed by one ALTER, against the bare statements, and against
//! `sea-orm-migration` run over the tenants one after the other.

mod databases;
mod held_up;
mod size;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use end_to_end::bed::{Bed, Store};
use futures_util::StreamExt as _;
use futures_util::stream;
use sea_orm_migration::prelude::{
    Alias, ColumnDef, DbErr, MigrationName, MigrationTrait, MigratorTrait, SchemaManager, Table,
};
use serde_json::json;

use crate::Effort;
use crate::report::{Report, median};
use databases::Databases;

/// How many databases are changed at once by bare statements: the best is what Freehold is compared with.
const AT_ONCE: [usize; 6] = [2, 4, 8, 16, 32, 64];

/// How long a rollout may take.
const PATIENCE: Duration = Duration::from_mins(5);

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
    bed.new_tenants_get(1).await;
    bed.done("PATCH", "/v1/servers/local", Some(json!({ "capacity": 200_000, "warm": 0, "reserve": 100 }))).await;
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

/// Rolls out, and answers how long that took: until it had ended by the registry's clock, which is this machine's. It is looked at
/// seldom, so that the looks cost it nothing.
async fn roll(bed: &Bed, version: u32, is_down: bool) -> Duration {
    // A database on SQLite waits for the disk, and one on Postgres for its server.
    let at_once = if bed.store == Store::Sqlite { 64 } else { 32 };
    let settings = json!({ "canary": 0, "waves": [], "concurrency": at_once, "per_server": at_once });
    let order = json!({ "version": version, "down": is_down, "settings": settings });
    let begun = Utc::now();
    let rollout = bed.done("POST", "/v1/rollouts", Some(order)).await;
    let id = rollout["id"].as_str().unwrap();
    let ended = bed.until_rollout_within(PATIENCE, id, |now| now["state"] != "running").await;
    assert_eq!((&ended["state"], &ended["counts"]["failed"]), (&json!("done"), &json!(0)), "{ended}");
    let end: DateTime<Utc> = ended["finished_at"].as_str().unwrap().parse().unwrap();
    (end - begun).to_std().unwrap()
}

pub(crate) async fn measure(effort: Effort) -> Report {
    let mut report = Report::new("fleet");
    Box::pin(one_alter_each(&mut report, Store::Postgres, effort.either(1_000, 50), effort)).await;
    Box::pin(one_alter_each(&mut report, Store::Sqlite, effort.either(10_000, 100), effort)).await;
    Box::pin(size::nothing_to_do(&mut report, effort)).await;
    Box::pin(size::memory(&mut report, effort)).await;
    Box::pin(held_up::by_a_lock(&mut report, effort)).await;
    Box::pin(held_up::by_a_rollout(&mut report, effort)).await;
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
