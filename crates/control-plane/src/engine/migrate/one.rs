//! One migration, up or down, together with its record.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use sea_orm::{DatabaseExecutor, TransactionTrait};
use sea_orm_migration::{MigrationTrait, SchemaManager};
use tokio::time::sleep;

use super::state::Step;
use super::{Patience, unfinished};
use crate::engine::EngineError;

/// Runs it. Where it does not get its locks, it is tried again, with nothing held between.
pub(super) async fn run(
    db: &DatabaseExecutor<'_>,
    migration: &dyn MigrationTrait,
    step: Step,
    patience: &Patience,
) -> Result<(), EngineError> {
    if let (DatabaseExecutor::Connection(db), Some(false)) = (db, migration.use_transaction()) {
        return unfinished::run(db, migration, step, patience).await;
    }
    let mut pauses = patience.pauses();
    loop {
        let Err(error) = in_transaction(db, migration, step).await else { return Ok(()) };
        let Some(pause) = pauses.next().filter(|_| error.is_busy()) else { return Err(error) };
        sleep(pause).await;
    }
}

async fn in_transaction(
    db: &DatabaseExecutor<'_>,
    migration: &dyn MigrationTrait,
    step: Step,
) -> Result<(), EngineError> {
    let what = step.what(migration);
    let failed = |error| EngineError::of_migration(&what, error);
    let transaction = db.begin().await.map_err(failed)?;
    let done = match guarded(migration, step, &SchemaManager::new(&transaction)).await {
        Ok(()) => step.record(&transaction, migration.name()).await.map_err(failed),
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => transaction.commit().await.map_err(failed),
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
