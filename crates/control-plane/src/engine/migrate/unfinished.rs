//! Migrations outside of a transaction, as `CREATE INDEX CONCURRENTLY` must be. A mark is written before one begins and goes in
//! the commit of its record: one that broke off is found, what it left behind is dropped, and it is run again.

use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement, TransactionTrait};
use sea_orm_migration::{MigrationTrait, SchemaManager};
use tokio::time::sleep;

use super::state::Step;
use super::{Patience, one};
use crate::engine::EngineError;
use crate::engine::database::UNFINISHED;

/// What waits for a lock, or for transactions to end, holds nobody up then but other changes of the same table's schema.
const WAIT: &str = "SET lock_timeout = 0";
/// The session's own limit again.
const WAIT_NO_LONGER: &str = "RESET lock_timeout";

/// Runs it. It must be one that may be run again.
pub(super) async fn run(
    db: &DatabaseConnection,
    migration: &dyn MigrationTrait,
    step: Step,
    patience: &Patience,
) -> Result<(), EngineError> {
    mark(db, migration, step).await?;
    let mut pauses = patience.pauses();
    loop {
        let error = match once(db, migration, step).await {
            Ok(()) => break,
            Err(error) => error,
        };
        if error.is_unavailable() && !error.is_busy() {
            return Err(error);
        }
        // A half-made index is kept up to date by every write, and a unique one refuses some.
        let had_begun = repair(db).await?;
        let Some(pause) = pauses.next().filter(|_| error.is_busy()) else { return Err(error) };
        sleep(pause).await;
        if had_begun {
            // It had its lock on the table, which holds no reader or writer up, and waited for older transactions to end: that
            // it may do for as long as a statement may run.
            db.execute_unprepared(WAIT).await.map_err(|error| of(migration, step, error))?;
        }
    }
    db.execute_unprepared(WAIT_NO_LONGER).await.map_err(|error| of(migration, step, error))?;
    let recorded = async {
        let transaction = db.begin().await?;
        Step { is_marked: true, ..step }.record(&transaction, migration.name()).await?;
        transaction.commit().await
    };
    recorded.await.map_err(|error| of(migration, step, error))
}

async fn once(db: &DatabaseConnection, migration: &dyn MigrationTrait, step: Step) -> Result<(), EngineError> {
    one::guarded(migration, step, &SchemaManager::new(db)).await
}

async fn mark(db: &DatabaseConnection, migration: &dyn MigrationTrait, step: Step) -> Result<(), EngineError> {
    let mark = Statement::from_sql_and_values(
        db.get_database_backend(),
        format!("INSERT INTO {UNFINISHED} (position, name) VALUES ($1, $2) ON CONFLICT (position) DO NOTHING"),
        [i32::try_from(step.position).unwrap_or(i32::MAX).into(), migration.name().into()],
    );
    db.execute_raw(mark).await.map(drop).map_err(|error| of(migration, step, error))
}

fn of(migration: &dyn MigrationTrait, step: Step, error: DbErr) -> EngineError {
    EngineError::of_migration(&step.what(migration), error)
}

/// Drops the indexes that were begun and not ended; answers whether there were any. Those of a partitioned table are not
/// valid until each partition has its own, and are left.
pub(super) async fn repair(db: &DatabaseConnection) -> Result<bool, EngineError> {
    let repaired = async {
        let invalid = "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_index i \
                       JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace \
                       WHERE NOT i.indisvalid AND c.relkind = 'i' AND n.nspname NOT IN ('pg_catalog', 'pg_toast') \
                       AND pg_has_role(c.relowner, 'USAGE')";
        let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), invalid)).await?;
        if rows.is_empty() {
            return Ok(false);
        }
        db.execute_unprepared(WAIT).await?;
        for row in rows {
            let index: String = row.try_get_by_index(0)?;
            db.execute_unprepared(&format!("DROP INDEX CONCURRENTLY IF EXISTS {index}")).await?;
        }
        db.execute_unprepared(WAIT_NO_LONGER).await?;
        Ok(true)
    };
    repaired.await.map_err(|error: DbErr| EngineError::of("drop an index that was not made to its end", error))
}
