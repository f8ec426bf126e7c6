//! A bad migration is told before any tenant has it.

use super::super::lint::rehearse;
use super::*;
use crate::engine::DatabaseName;
use crate::registry::entities::warm_databases;

on_both! {
    what_a_bad_migration_does_is_told_for_each_version_found,
    what_fails_on_an_empty_database_says_so_and_leaves_nothing,
    what_whoever_died_at_a_look_left_is_dropped_by_the_keeper,
}

/// A third migration that holds others up, and a fourth that cannot be.
struct Bad;

#[async_trait]
impl TenantSchema for Bad {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        let mut all = Notes.migrations();
        let third = "CREATE INDEX by_author ON notes (author); ALTER TABLE notes ADD COLUMN legs INTEGER";
        all.push(Box::new(Statements("third", third)));
        all.push(Box::new(Statements("fourth", "ALTER TABLE nothing ADD COLUMN likes INTEGER")));
        all
    }

    async fn seed(&self, db: &DatabaseTransaction, tenant: &NewTenant) -> Result<(), DbErr> {
        Notes.seed(db, tenant).await
    }
}

async fn bad(stage: &Stage) -> Fleet<'_> {
    Fleet { plane: stage.plane_with_schema(Arc::new(Bad)), ..Fleet::of(stage, 2).await }
}

async fn what_a_bad_migration_does_is_told_for_each_version_found(stage: &Stage) {
    let fleet = bad(stage).await;
    let one_behind = tenants::Entity::update_many()
        .col_expr(tenants::Column::SchemaVersion, Expr::value(1))
        .filter(tenants::Column::Id.eq(of(&fleet.tenants[0])));
    one_behind.exec(fleet.plane.registry.db()).await.unwrap();
    let told = rehearse(&fleet.plane, &Order { version: 3, ..Fleet::order() }).await.unwrap();
    let versions: Vec<_> = told.iter().map(|it| (it.version, it.engine, it.error.as_deref())).collect();
    assert_eq!(versions, [(1, stage.kind(), None), (2, stage.kind(), None)]);
    let names = |number: usize| told[number].migrations.iter().map(|it| it.migration.as_str()).collect::<Vec<_>>();
    assert_eq!((names(0), names(1)), (vec!["second", "third"], vec!["third"]));
    let third = &told[1].migrations[0];
    let kinds: Vec<_> = third.findings.iter().map(|it| it.kind.as_str()).collect();
    if stage.kind() == crate::engine::EngineKind::Postgres {
        assert_eq!(kinds, ["access_exclusive", "index"], "{third:?}");
        assert!(third.statements.concat().contains("CREATE INDEX by_author"), "{third:?}");
        assert!(third.locks.iter().any(|(table, mode)| table == "notes" && mode == "AccessExclusiveLock"), "{third:?}");
    }
    assert_eq!(fleet.versions().await, [1, 2], "no tenant has it");
    assert!(stage.stock().await.is_empty(), "nothing is left of the scratch databases");
    let down = Order { version: 2, is_down: true, ..Fleet::order() };
    assert!(rehearse(&fleet.plane, &down).await.unwrap().is_empty());
}

async fn what_fails_on_an_empty_database_says_so_and_leaves_nothing(stage: &Stage) {
    let fleet = bad(stage).await;
    let told = rehearse(&fleet.plane, &Fleet::order()).await.unwrap();
    let error = told[0].error.as_deref().unwrap_or_default();
    assert!(error.contains("fourth"), "{error}");
    assert!(stage.stock().await.is_empty(), "{:?}", stage.stock().await);
}

/// A third migration that never comes to an end.
struct Endless(Arc<Notify>);

struct Never(Arc<Notify>);

impl MigrationName for Never {
    fn name(&self) -> &'static str {
        "third"
    }
}

#[async_trait]
impl MigrationTrait for Never {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, _: &SchemaManager) -> Result<(), DbErr> {
        self.0.notify_one();
        std::future::pending().await
    }
}

#[async_trait]
impl TenantSchema for Endless {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        let mut all = Notes.migrations();
        all.push(Box::new(Never(Arc::clone(&self.0))));
        all
    }

    async fn seed(&self, db: &DatabaseTransaction, tenant: &NewTenant) -> Result<(), DbErr> {
        Notes.seed(db, tenant).await
    }
}

async fn what_whoever_died_at_a_look_left_is_dropped_by_the_keeper(stage: &Stage) {
    let begun = Arc::new(Notify::new());
    let plane = stage.plane_with_schema(Arc::new(Endless(Arc::clone(&begun))));
    let fleet = Fleet { plane, ..Fleet::of(stage, 1).await };
    let plane = fleet.plane.clone();
    let look = tokio::spawn(async move { rehearse(&plane, &Order { version: 3, ..Fleet::order() }).await });
    tokio::time::timeout(PATIENCE, begun.notified()).await.unwrap();
    // As by kill -9.
    look.abort();
    assert!(look.await.is_err_and(|error| error.is_cancelled()));
    stage.keep(0).await;
    let left = scratch(&fleet).await;
    let [left] = &left[..] else { panic!("one, which may still be at work: {left:?}") };
    let (engine, _) = fleet.database(&fleet.tenants[0]).await;
    assert!(engine.has_database(left).await.unwrap());
    warm_databases::Entity::update_many()
        .col_expr(warm_databases::Column::LeaseUntil, Expr::value(chrono::Utc::now() - Duration::from_secs(1)))
        .exec(fleet.plane.registry.db())
        .await
        .unwrap();
    stage.keep(0).await;
    assert_eq!((scratch(&fleet).await, engine.has_database(left).await.unwrap()), (Vec::new(), false));
    assert_eq!(fleet.versions().await, [2], "its tenant is as it was");
}

async fn scratch(fleet: &Fleet<'_>) -> Vec<DatabaseName> {
    let rows = warm_databases::Entity::find().all(fleet.plane.registry.db()).await.unwrap();
    rows.iter().map(|row| row.name.parse().unwrap()).collect()
}
