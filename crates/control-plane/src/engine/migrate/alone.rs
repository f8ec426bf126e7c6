//! Nobody else migrates the database meanwhile. Whoever finds somebody at it does not wait: a session that waits for a lock
//! holds back `CREATE INDEX CONCURRENTLY`, which waits for that session.

use std::time::Duration;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseExecutor, DatabaseTransaction, DbErr, SqliteTransactionMode,
    Statement, TransactionOptions, TransactionTrait,
};
use tokio::time::sleep;

use super::{Patience, Rolled, Work};
use crate::engine::{EngineError, sqlite};

/// `freehold`, in ASCII: of all keys of advisory locks in a tenant's database this one is ours.
const KEY: i64 = 0x6672_6565_686f_6c64;

/// On Postgres: the lock is the session's, and ends with it, whatever becomes of us.
pub(super) async fn under_lock(db: &DatabaseConnection, work: &Work<'_>) -> Result<Rolled, EngineError> {
    let failed = |error| EngineError::of("lock the database's migrations", error);
    let [lock, statement] = limits(work.patience);
    // Not what the database has as well: a statement sees what was committed before it began, and so before the lock was ours.
    let lock = format!(
        "SELECT pg_try_advisory_lock({KEY}), set_config('lock_timeout', '{lock}', false), \
         set_config('statement_timeout', '{statement}', false)"
    );
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), lock)).await.map_err(failed)?;
    let is_ours: bool = row.map(|row| row.try_get_by_index(0)).transpose().map_err(failed)?.unwrap_or_default();
    if !is_ours {
        return Err(EngineError::busy("somebody else migrates the database now: try again when that has ended"));
    }
    let done = work.run_alone(&DatabaseExecutor::Connection(db)).await;
    let freed = format!("SELECT pg_advisory_unlock({KEY}); RESET lock_timeout; RESET statement_timeout");
    if let Err(error) = db.execute_unprepared(&freed).await {
        // It is free all the same, for it was the session's that is gone.
        tracing::debug!(%error, "the session that migrated a database ended before it was told to");
    }
    done
}

/// Sets the session's limits, until they are taken back.
pub(super) async fn limit(db: &impl ConnectionTrait, patience: &Patience) -> Result<(), DbErr> {
    let [lock, statement] = limits(patience);
    db.execute_unprepared(&format!("SET lock_timeout = {lock}; SET statement_timeout = {statement}")).await.map(drop)
}

/// On locks and on statements. In whole milliseconds, of which 0 would be no limit at all.
fn limits(patience: &Patience) -> [u128; 2] {
    [patience.lock, patience.statement].map(|limit| limit.as_millis().max(1))
}

/// On SQLite: nobody else writes meanwhile, and readers see nothing of it before its end.
pub(super) async fn in_one_transaction(db: &DatabaseConnection, work: &Work<'_>) -> Result<Rolled, EngineError> {
    let failed = |error| EngineError::of("migrate the database", error);
    db.execute_unprepared(&waits(work.patience.lock)).await.map_err(failed)?;
    let done = match begin(db, work.patience).await {
        Ok(transaction) => {
            let done = work.run_alone(&DatabaseExecutor::Transaction(&transaction)).await;
            // What came before a failure stays: each migration has a savepoint of its own.
            let committed = transaction.commit().await.map_err(failed);
            done.and_then(|rolled| committed.map(|()| rolled))
        }
        Err(error) => Err(error),
    };
    db.execute_unprepared(&waits(sqlite::PATIENCE)).await.map_err(failed)?;
    done
}

fn waits(patience: Duration) -> String {
    format!("PRAGMA busy_timeout = {}", patience.as_millis())
}

async fn begin(db: &DatabaseConnection, patience: &Patience) -> Result<DatabaseTransaction, EngineError> {
    let options =
        TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Exclusive), ..Default::default() };
    let mut pauses = patience.pauses();
    loop {
        let begun = db.begin_with_options(options).await;
        let error = match begun.map_err(|error| EngineError::of("begin to migrate the database", error)) {
            Ok(transaction) => return Ok(transaction),
            Err(error) => error,
        };
        let Some(pause) = pauses.next().filter(|_| error.is_busy()) else { return Err(error) };
        sleep(pause).await;
    }
}
