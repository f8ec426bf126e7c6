//! What a rehearsal tells of each kind of migration.

use super::migrate::{Schema, Stage, Told};
use super::*;

/// What a migration does, and what is found in it.
const KINDS: [(&str, &[Blocks]); 9] = [
    ("CREATE TABLE more (id INTEGER PRIMARY KEY, name TEXT NOT NULL)", &[]),
    ("INSERT INTO effects (migration) VALUES ('one of some more words than four')", &[]),
    ("ALTER TABLE effects ADD COLUMN colour TEXT", &[Blocks::AccessExclusive]),
    ("ALTER TABLE effects ADD COLUMN legs INTEGER NOT NULL", &[Blocks::AccessExclusive, Blocks::NotNull]),
    ("ALTER TABLE effects ADD COLUMN eyes INTEGER NOT NULL DEFAULT 2", &[Blocks::AccessExclusive]),
    ("ALTER TABLE effects ALTER spare SET NOT NULL", &[Blocks::AccessExclusive, Blocks::NotNull]),
    ("ALTER TABLE effects ALTER spare TYPE BIGINT", &[Blocks::AccessExclusive, Blocks::Rewrite, Blocks::TypeChange]),
    ("ALTER TABLE effects ALTER long TYPE VARCHAR(60)", &[Blocks::AccessExclusive, Blocks::TypeChange]),
    ("CREATE INDEX effects_by_name ON effects (migration)", &[Blocks::Index]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rehearsal_tells_statements_locks_rewrites_and_what_blocks() {
    for (statement, kinds) in KINDS {
        let spare = "ALTER TABLE effects ADD COLUMN spare INTEGER, ADD COLUMN long VARCHAR(50)";
        let schema = Schema::of([Told::new("m2", [spare]), Told::new("m3", [statement])]);
        let stage = Stage::on(EngineKind::Postgres, &schema).await;
        stage.roll(&schema, 2).await.unwrap();
        let entered = stage.engine.enter_aloud(&stage.name).await.unwrap();
        let rehearsed = entered.rehearse(&schema, 3).await.unwrap();
        assert_eq!(entered.version().await.unwrap(), 3, "it is done there, so that the next finds it");
        entered.leave().await.unwrap();
        let [one] = rehearsed.as_slice() else { panic!("{rehearsed:?}") };
        assert_eq!((one.migration.as_str(), one.transaction), ("m3", true));
        assert_eq!(one.statements, [statement]);
        assert_eq!(one.findings.iter().map(|it| it.kind).collect::<Vec<_>>(), kinds, "{statement}: {:?}", one.findings);
        let is_exclusive = one.locks.contains(&("effects".to_owned(), "AccessExclusiveLock".to_owned()));
        assert_eq!(is_exclusive, kinds.contains(&Blocks::AccessExclusive), "{statement}: {:?}", one.locks);
        let rewrites: &[&str] = if kinds.contains(&Blocks::Rewrite) { &["effects"] } else { &[] };
        assert_eq!(one.rewrites, rewrites, "{statement}");
        stage.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_of_a_transaction_only_what_is_concurrent_passes() {
    let concurrent = "CREATE INDEX CONCURRENTLY effects_by_name ON effects (migration)";
    let (plain, altered) = ("CREATE INDEX plain ON effects (migration)", "ALTER TABLE effects ADD COLUMN colour TEXT");
    let schema = Schema::of([Told::new("m2", [concurrent]).outside(), Told::new("m3", [plain, altered]).outside()]);
    let stage = Stage::on(EngineKind::Postgres, &schema).await;
    let entered = stage.engine.enter_aloud(&stage.name).await.unwrap();
    let rehearsed = entered.rehearse(&schema, 3).await.unwrap();
    entered.leave().await.unwrap();
    assert_eq!(rehearsed[0].statements, [concurrent]);
    assert_eq!((rehearsed[0].transaction, rehearsed[0].findings.len()), (false, 0), "{:?}", rehearsed[0].findings);
    let kinds: Vec<_> = rehearsed[1].findings.iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [Blocks::Index, Blocks::Unbounded], "{:?}", rehearsed[1].findings);
    stage.end().await;
}

struct Built;

impl MigrationName for Built {
    fn name(&self) -> &'static str {
        "built"
    }
}

#[async_trait]
impl MigrationTrait for Built {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let id = sea_orm_migration::schema::integer("id");
        manager.create_table(sea_orm_migration::prelude::Table::create().table("built").col(id).to_owned()).await
    }
}

struct OfBuilt;

#[async_trait]
impl TenantSchema for OfBuilt {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(Built)]
    }

    async fn seed(&self, _: &DatabaseTransaction, _: &NewTenant) -> Result<(), DbErr> {
        Ok(())
    }
}

#[tokio::test]
async fn a_rehearsal_on_sqlite_tells_the_statements() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().display());
    let engine = engine_for(EngineKind::Sqlite, &url.into(), None, worker()).unwrap();
    let name = DatabaseName::generate(&mark(), &mut rand::rng());
    engine.create_database(&name).await.unwrap();
    let entered = engine.enter_aloud(&name).await.unwrap();
    let rehearsed = entered.rehearse(&OfBuilt, 1).await.unwrap();
    assert_eq!(rehearsed[0].statements, ["CREATE TABLE \"built\" ( \"id\" integer NOT NULL )"]);
    assert_eq!((rehearsed[0].transaction, rehearsed[0].findings.len()), (true, 0));
    assert_eq!(entered.version().await.unwrap(), 1);
    entered.leave().await.unwrap();
}
