//! Migrations of one database: each once, one at a time, and no query held up by one for longer than it may be.

mod between;
mod concurrently;
mod kill;
mod locks;

use sea_orm::{DatabaseConnection, Statement};
use tempfile::TempDir;

use super::*;

/// A migration of a test: its statements, in their order.
#[derive(Clone, Default)]
pub(super) struct Told {
    name: &'static str,
    up: Vec<String>,
    /// None: there is no way down.
    down: Option<Vec<String>>,
    is_outside: bool,
    panics: bool,
    /// Told when all is done but its end, which never comes.
    hangs: Option<Arc<tokio::sync::Notify>>,
}

impl Told {
    pub(super) fn new<const N: usize>(name: &'static str, up: [&str; N]) -> Self {
        Self { name, up: up.map(str::to_owned).into(), ..Self::default() }
    }

    fn back<const N: usize>(self, down: [&str; N]) -> Self {
        Self { down: Some(down.map(str::to_owned).into()), ..self }
    }

    pub(super) fn outside(self) -> Self {
        Self { is_outside: true, ..self }
    }

    fn panics(self) -> Self {
        Self { panics: true, ..self }
    }

    fn hangs(self, begun: &Arc<tokio::sync::Notify>) -> Self {
        Self { hangs: Some(Arc::clone(begun)), ..self }
    }
}

impl MigrationName for Told {
    fn name(&self) -> &'static str {
        self.name
    }
}

#[async_trait]
impl MigrationTrait for Told {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in &self.up {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        assert!(!self.panics, "planted");
        if let Some(begun) = &self.hangs {
            begun.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let Some(down) = &self.down else { return Err(DbErr::Migration("We Don't Do That Here".to_owned())) };
        for statement in down {
            manager.get_connection().execute_unprepared(statement).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        self.is_outside.then_some(false)
    }
}

#[derive(Clone)]
pub(super) struct Schema(Vec<Told>);

impl Schema {
    /// After a first migration that makes the table `effects`, in which others write that they were run.
    pub(super) fn of<const N: usize>(told: [Told; N]) -> Self {
        let first = Told::new("m1", ["CREATE TABLE effects (migration TEXT NOT NULL)"]).back(["DROP TABLE effects"]);
        Self(std::iter::once(first).chain(told).collect())
    }
}

#[async_trait]
impl TenantSchema for Schema {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        self.0.iter().map(|told| Box::new(told.clone()) as Box<dyn MigrationTrait>).collect()
    }

    async fn seed(&self, _: &DatabaseTransaction, _: &NewTenant) -> Result<(), DbErr> {
        Ok(())
    }
}

fn effect(name: &str) -> String {
    format!("INSERT INTO effects (migration) VALUES ('{name}')")
}

fn no_effect(name: &str) -> String {
    format!("DELETE FROM effects WHERE migration = '{name}'")
}

/// Gives up soon.
fn hasty() -> Patience {
    Patience { lock: Duration::from_millis(200), lock_attempts: 2, ..Patience::default() }
}

/// A database at version 1.
pub(super) struct Stage {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) name: DatabaseName,
    _folder: TempDir,
}

impl Stage {
    pub(super) async fn on(kind: EngineKind, schema: &Schema) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = match kind {
            EngineKind::Postgres => postgres(),
            EngineKind::Sqlite => {
                let url = format!("sqlite://{}", folder.path().display());
                engine_for(EngineKind::Sqlite, &url.into(), None, worker()).unwrap()
            }
        };
        engine.check().await.unwrap();
        let name = DatabaseName::generate(&mark(), &mut rand::rng());
        engine.create_database(&name).await.unwrap();
        let entered = engine.enter(&name).await.unwrap();
        assert_eq!(entered.migrate(schema, 1).await.unwrap(), 1);
        entered.leave().await.unwrap();
        Self { engine, name, _folder: folder }
    }

    pub(super) async fn enter(&self) -> Entered {
        self.engine.enter(&self.name).await.unwrap()
    }

    async fn enter_with(&self, patience: &Patience) -> Entered {
        self.engine.enter_among_others(&self.name, *patience).await.unwrap()
    }

    async fn roll_with(&self, schema: &Schema, to: u32, patience: &Patience) -> Result<Rolled, EngineError> {
        let entered = self.enter_with(patience).await;
        let rolled = entered.roll(None, schema, to, Way::UpOrDown).await;
        entered.leave().await.unwrap();
        rolled
    }

    pub(super) async fn roll(&self, schema: &Schema, to: u32) -> Result<Rolled, EngineError> {
        self.roll_with(schema, to, &Patience::default()).await
    }

    async fn version(&self) -> u32 {
        let entered = self.enter().await;
        let version = entered.version().await.unwrap();
        entered.leave().await.unwrap();
        version
    }

    /// Somebody else in the database: on Postgres a superuser.
    pub(super) async fn other(&self) -> DatabaseConnection {
        let url = self.engine.url(&self.name, Slot::A, &password());
        let mut options = sea_orm::ConnectOptions::new(url.expose_secret());
        if url.expose_secret().starts_with("postgres") {
            let mut url = url::Url::parse(&std::env::var("FREEHOLD_TEST_POSTGRES_SUPERUSER_URL").unwrap()).unwrap();
            url.set_path(self.name.as_str());
            options = sea_orm::ConnectOptions::new(String::from(url));
        }
        options.max_connections(1).sqlx_logging(false);
        service::pool::open(options).await.unwrap()
    }

    /// What was written by migrations, sorted.
    async fn effects(&self) -> String {
        let db = self.other().await;
        let effects = "SELECT migration FROM effects ORDER BY migration";
        let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), effects)).await.unwrap();
        db.close().await.unwrap();
        let names: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
        names.join(" ")
    }

    /// The test's own sessions were closed, and may not have left yet: the server's admin may not end them.
    pub(super) async fn end(self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while let Err(error) = self.engine.drop_database(&self.name).await {
            assert!(error.is_unavailable() && std::time::Instant::now() < deadline, "{error}");
        }
    }
}

async fn number(db: &DatabaseConnection, sql: &str) -> i64 {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap().unwrap();
    row.try_get_by_index(0).unwrap()
}

/// Waits until the server says so.
async fn until(db: &DatabaseConnection, is_so: &str) {
    let sql = format!("SELECT count(*) WHERE {is_so}");
    let looked = async {
        while number(db, &sql).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), looked).await.unwrap_or_else(|_| panic!("it was never so: {is_so}"));
}

macro_rules! on_both {
    ($($test:ident),* $(,)?) => {$(
        mod $test {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                super::$test(EngineKind::Postgres).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                super::$test(EngineKind::Sqlite).await;
            }
        }
    )*};
}

on_both!(
    a_database_is_taken_up_and_back_down,
    a_migration_that_fails_leaves_nothing_and_those_before_it_stay,
    what_the_program_does_not_know_is_refused,
    many_at_once_apply_each_migration_once,
    a_database_that_was_made_before_is_migrated_too,
);

async fn a_database_is_taken_up_and_back_down(kind: EngineKind) {
    let stuck = Told::new("m3", [effect("m3").as_str()]);
    let schema = Schema::of([
        Told::new("m2", [effect("m2").as_str()]).back([no_effect("m2").as_str()]),
        stuck.clone().back([no_effect("m3").as_str()]),
        Told::new("m4", [effect("m4").as_str()]).back([no_effect("m4").as_str()]),
    ]);
    let stage = Stage::on(kind, &schema).await;
    assert_eq!(stage.roll(&schema, 4).await.unwrap(), Rolled { before: 1, after: 4 });
    assert_eq!(stage.effects().await, "m2 m3 m4");
    assert_eq!(stage.roll(&schema, 4).await.unwrap(), Rolled { before: 4, after: 4 });
    assert_eq!(stage.roll(&schema, 3).await.unwrap(), Rolled { before: 4, after: 3 });
    assert_eq!((stage.effects().await.as_str(), stage.version().await), ("m2 m3", 3));
    // One that has no way down stops it there.
    let mut without = schema.clone();
    without.0[2] = stuck;
    let error = stage.roll(&without, 1).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("take back the migration m3: it has no way down"), "{error}");
    assert_eq!((stage.effects().await.as_str(), stage.version().await), ("m2 m3", 3));
    // Whoever makes new databases goes up only.
    let entered = stage.enter().await;
    assert_eq!(entered.migrate(&schema, 1).await.unwrap(), 3);
    entered.leave().await.unwrap();
    assert_eq!(stage.roll(&schema, 1).await.unwrap(), Rolled { before: 3, after: 1 });
    assert_eq!((stage.effects().await.as_str(), stage.version().await), ("", 1));
    stage.end().await;
}

async fn a_migration_that_fails_leaves_nothing_and_those_before_it_stay(kind: EngineKind) {
    let twice = effect("m3");
    let fails =
        Told::new("m3", [twice.as_str(), twice.as_str(), "CREATE UNIQUE INDEX each_once ON effects (migration)"]);
    let schema = Schema::of([Told::new("m2", [effect("m2").as_str()]), fails]);
    let stage = Stage::on(kind, &schema).await;
    let error = stage.roll(&schema, 3).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    assert!(error.to_string().contains("could not apply the migration m3"), "{error}");
    if kind == EngineKind::Postgres {
        assert!(error.to_string().contains("23505, table effects, constraint each_once"), "{error}");
    }
    assert_eq!((stage.effects().await.as_str(), stage.version().await), ("m2", 2));
    // One that panics likewise, in a session that goes on.
    let panics = Schema::of([Told::new("m2", []), Told::new("m3", [twice.as_str()]).panics()]);
    let entered = stage.enter().await;
    let error = entered.roll(None, &panics, 3, Way::UpOrDown).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Failed, "{error}");
    assert!(error.to_string().contains("m3: it panicked"), "{error}");
    let repaired = Schema::of([Told::new("m2", []), Told::new("m3", [twice.as_str()])]);
    assert_eq!(
        entered.roll(None, &repaired, 3, Way::UpOrDown).await.unwrap(),
        Rolled { before: 2, after: 3 },
        "the session holds nothing of what failed"
    );
    entered.leave().await.unwrap();
    assert_eq!((stage.effects().await.as_str(), stage.version().await), ("m2 m3", 3));
    stage.end().await;
}

async fn what_the_program_does_not_know_is_refused(kind: EngineKind) {
    let schema = Schema::of([Told::new("m2", [effect("m2").as_str()])]);
    let stage = Stage::on(kind, &schema).await;
    let error = stage.roll(&schema, 3).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("contains 2 migrations and version 3 is asked for"), "{error}");
    assert_eq!((stage.effects().await.as_str(), stage.version().await), ("", 1));
    stage.roll(&schema, 2).await.unwrap();
    // An older program, and one with another history.
    for other in [Schema::of([]), Schema::of([Told::new("another", [])])] {
        let error = stage.roll(&other, 1).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.to_string().contains("has the migration \"m2\" in place 2"), "{error}");
    }
    assert_eq!((stage.effects().await.as_str(), stage.version().await), ("m2", 2));
    let entered = stage.enter().await;
    let (mine, others) = (TenantId::generate(), TenantId::generate());
    assert_eq!(entered.belongs_to(mine).await.unwrap_err().kind(), Kind::Refused, "it has no stamp");
    entered.stamp(mine).await.unwrap();
    entered.belongs_to(mine).await.unwrap();
    assert_eq!(entered.belongs_to(others).await.unwrap_err().kind(), Kind::Refused, "another's");
    let roll = async |whose| entered.roll(Some(whose), &schema, 1, Way::UpOrDown).await;
    assert_eq!(roll(others).await.unwrap_err().kind(), Kind::Refused, "another's");
    entered.execute("DELETE FROM freehold_stamp").await;
    assert_eq!(roll(mine).await.unwrap_err().kind(), Kind::Refused, "it has no stamp");
    entered.execute("DROP TABLE freehold_stamp").await;
    assert_eq!(roll(mine).await.unwrap_err().kind(), Kind::Refused, "there never was one");
    assert_eq!((stage.effects().await.as_str(), stage.version().await), ("m2", 2));
    stage.roll(&schema, 2).await.expect("what was refused keeps no lock though its session goes on");
    entered.leave().await.unwrap();
    stage.end().await;
}

async fn many_at_once_apply_each_migration_once(kind: EngineKind) {
    let schema = Schema::of(["m2", "m3", "m4"].map(|name| Told::new(name, [effect(name).as_str()])));
    let stage = Arc::new(Stage::on(kind, &schema).await);
    let rolls = (0..8).map(|_| {
        let (stage, schema) = (Arc::clone(&stage), schema.clone());
        tokio::spawn(async move {
            loop {
                match stage.roll(&schema, 4).await {
                    Ok(rolled) => return rolled,
                    Err(error) => assert_eq!(error.kind(), Kind::Busy, "{error}"),
                }
            }
        })
    });
    for roll in rolls.collect::<Vec<_>>() {
        assert_eq!(roll.await.unwrap().after, 4);
    }
    assert_eq!(stage.effects().await, "m2 m3 m4");
    Arc::into_inner(stage).unwrap().end().await;
}

/// There was no table of unfinished migrations then.
async fn a_database_that_was_made_before_is_migrated_too(kind: EngineKind) {
    let schema = Schema::of([Told::new("m2", [effect("m2").as_str()])]);
    let stage = Stage::on(kind, &schema).await;
    let other = stage.other().await;
    other.execute_unprepared("DROP TABLE freehold_unfinished").await.unwrap();
    assert_eq!(stage.roll(&schema, 2).await.unwrap(), Rolled { before: 1, after: 2 });
    if kind == EngineKind::Postgres {
        for table in ["freehold_migrations", "freehold_unfinished"] {
            let open = format!("SELECT count(*) WHERE has_table_privilege('freehold_rw', '{table}', 'INSERT')");
            assert_eq!(number(&other, &open).await, 0, "{table} is closed to tenants");
        }
    }
    other.close().await.unwrap();
    stage.end().await;
}
