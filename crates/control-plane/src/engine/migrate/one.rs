//! One migration, up or down, together with its record.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use sea_orm::{DatabaseConnection, DatabaseTransaction, TransactionTrait};
use sea_orm_migration::{MigrationTrait, SchemaManager};

use super::state::Step;
use super::{Patience, unfinished};
use crate::engine::EngineError;

/// Runs it. Where it does not get its locks, it is tried again, with nothing held between.
pub(super) async fn run(
    db: &DatabaseConnection,
    migration: &dyn MigrationTrait,
    step: Step,
    patience: &Patience,
) -> Result<(), EngineError> {
    if migration.use_transaction() == Some(false) {
        return unfinished::run(db, migration, step, patience).await;
    }
    patience.retry(|| in_transaction(db, migration, step)).await
}

async fn in_transaction(
    db: &DatabaseConnection,
    migration: &dyn MigrationTrait,
    step: Step,
) -> Result<(), EngineError> {
    let what = step.what(migration);
    let transaction = db.begin().await.map_err(|error| EngineError::of_migration(&what, error))?;
    let done = with_record(&transaction, migration, step).await;
    end(transaction, &what, done).await
}

/// The caller ends the transaction.
pub(super) async fn with_record(
    transaction: &DatabaseTransaction,
    migration: &dyn MigrationTrait,
    step: Step,
) -> Result<(), EngineError> {
    guarded(migration, step, &SchemaManager::new(transaction)).await?;
    let recorded = step.record(transaction, migration.name()).await;
    recorded.map_err(|error| EngineError::of_migration(&step.what(migration), error))
}

/// Commits, or rolls back what failed.
pub(super) async fn end<T>(
    transaction: DatabaseTransaction,
    what: &str,
    done: Result<T, EngineError>,
) -> Result<T, EngineError> {
    match done {
        Ok(done) => transaction.commit().await.map(|()| done).map_err(|error| EngineError::of_migration(what, error)),
        Err(error) => {
            if let Err(error) = transaction.rollback().await {
                tracing::debug!(%error, "the transaction of a migration ended with its session");
            }
            Err(error)
        }
    }
}

/// A panic is the failure of this migration: it holds nothing that others look into.
pub(in crate::engine) async fn guarded(
    migration: &dyn MigrationTrait,
    step: Step,
    manager: &SchemaManager<'_>,
) -> Result<(), EngineError> {
    let what = step.what(migration);
    let work = async { if step.is_up { migration.up(manager).await } else { migration.down(manager).await } };
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(done) => done.map_err(|error| step.failure(&what, error)),
        Err(_) => {
            Err(EngineError::failed(format!("could not {what}: it panicked; the control plane's log has its words")))
        }
    }
}

impl Step {
    pub(in crate::engine) fn what(self, migration: &dyn MigrationTrait) -> String {
        format!("{} the migration {}", if self.is_up { "apply" } else { "take back" }, migration.name())
    }

    fn failure(self, what: &str, error: sea_orm::DbErr) -> EngineError {
        // What the trait answers by itself where a migration has no `down`, and what one says that will not.
        if !self.is_up && matches!(error, sea_orm::DbErr::Migration(_)) {
            return EngineError::refused(format!(
                "could not {what}: it has no way down; give it a `down`, or undo it by a further migration"
            ));
        }
        EngineError::of_migration(what, error)
    }
}
