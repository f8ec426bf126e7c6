//! Nobody else migrates the database meanwhile. Whoever finds somebody at it does not wait: a session that waits for a lock
//! holds back `CREATE INDEX CONCURRENTLY`, which waits for that session.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use sea_orm::sqlx::{AssertSqlSafe, Either, raw_sql};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseExecutor, DatabaseTransaction, DbErr, QueryResult, RuntimeErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};
use tenancy::stamp;
use tokio::time::sleep;

use super::state::State;
use super::{Patience, Rolled, Work};
use crate::engine::database::{MIGRATIONS, UNFINISHED};
use crate::engine::error::sqlstate;
use crate::engine::{EngineError, database, sqlite};

/// `freehold`, in ASCII: of all keys of advisory locks in a tenant's database this one is ours.
const KEY: i64 = 0x6672_6565_686f_6c64;

/// The code of what names a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

/// On Postgres: the lock is the session's, and ends with it, whatever becomes of us.
pub(super) async fn under_lock(db: &DatabaseConnection, work: &Work<'_>) -> Result<Rolled, EngineError> {
    let done = match open(db, work).await {
        Ok(Some(state)) => work.run_alone(&DatabaseExecutor::Connection(db), state).await,
        Ok(None) => Err(EngineError::busy("somebody else migrates the database now: try again when that has ended")),
        Err(error) => Err(error),
    };
    // However often the lock was taken, and the limits where it was not.
    let freed = "SELECT pg_advisory_unlock_all(); RESET lock_timeout; RESET statement_timeout";
    if let Err(error) = db.execute_unprepared(freed).await {
        // It is free all the same, for it was the session's that is gone.
        tracing::debug!(%error, "the session that migrated a database ended before it was told to");
    }
    done
}

/// Takes the lock, and answers the state since; none where somebody else has it. Refuses a database that is another tenant's.
async fn open(db: &DatabaseConnection, work: &Work<'_>) -> Result<Option<State>, EngineError> {
    let failed = |error| EngineError::of("lock the database's migrations", error);
    match open_at_once(db, work).await {
        Ok(Opened::Busy) => Ok(None),
        Ok(Opened::Ours { stamp, state }) => work.is_on(stamp.as_deref()).map(|()| Some(state)),
        // A database that was never migrated, or by an older program: one thing after the other, and what is missed is made.
        Err(error) if sqlstate(&error).as_deref() == Some(UNDEFINED_TABLE) => {
            let lock = Statement::from_string(db.get_database_backend(), lock(work.patience));
            if !is_ours(db.query_one_raw(lock).await.map_err(failed)?.as_ref()).map_err(failed)? {
                return Ok(None);
            }
            check_stamp(db, work).await?;
            State::read(&DatabaseExecutor::Connection(db), work.has_roles).await.map(Some)
        }
        Err(error) => Err(failed(error)),
    }
}

/// How a database was found.
enum Opened {
    /// Somebody else has the lock.
    Busy,
    /// The lock is ours, and this was so since. The stamp is read where it matters whose the database is.
    Ours { stamp: Option<String>, state: State },
}

/// All in one message: a session that was just made answers it as soon as it would one statement.
async fn open_at_once(db: &DatabaseConnection, work: &Work<'_>) -> Result<Opened, DbErr> {
    // Each statement sees what was committed before it began, and so before the lock was ours: whatever the database's own
    // isolation is, in which the first might be the last to see anything.
    let isolation = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED".to_owned();
    let mut sql = vec![isolation, lock(work.patience), State::select(MIGRATIONS), State::select(UNFINISHED)];
    sql.extend(work.whose.map(|_| stamp::SELECT.to_owned()));
    let mut answers = raw_sql(AssertSqlSafe(sql.join("; "))).fetch_many(db.get_postgres_connection_pool());
    let mut rows = vec![Vec::new()];
    while let Some(answer) = answers.next().await {
        match (answer.map_err(|error| DbErr::Query(RuntimeErr::SqlxError(Arc::new(error))))?, rows.last_mut()) {
            (Either::Right(row), Some(rows)) => rows.push(QueryResult::from(row)),
            _ => rows.push(Vec::new()),
        }
    }
    let of = |statement: usize| rows.get(statement).map_or(&[][..], Vec::as_slice);
    if !is_ours(of(1).first())? {
        return Ok(Opened::Busy);
    }
    let stamp = of(4).first().map(|row| row.try_get_by_index(0)).transpose()?;
    Ok(Opened::Ours { stamp, state: State::of(of(2), of(3))? })
}

/// Takes the lock if nobody has it, and sets the session's limits.
fn lock(patience: &Patience) -> String {
    let [lock, statement] = limits(patience);
    format!(
        "SELECT pg_try_advisory_lock({KEY}), set_config('lock_timeout', '{lock}', false), \
         set_config('statement_timeout', '{statement}', false)"
    )
}

/// Where it matters whose the database is: nothing is made in one that is another's.
async fn check_stamp(db: &impl ConnectionTrait, work: &Work<'_>) -> Result<(), EngineError> {
    let stamp = if work.whose.is_some() { database::stamped(db).await? } else { None };
    work.is_on(stamp.as_deref())
}

fn is_ours(row: Option<&QueryResult>) -> Result<bool, DbErr> {
    row.map(|row| row.try_get_by_index(0)).transpose().map(Option::unwrap_or_default)
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
            let done = open_and_run(&transaction, work).await;
            // What came before a failure stays: each migration has a savepoint of its own.
            let committed = transaction.commit().await.map_err(failed);
            done.and_then(|rolled| committed.map(|()| rolled))
        }
        Err(error) => Err(error),
    };
    db.execute_unprepared(&waits(sqlite::PATIENCE)).await.map_err(failed)?;
    done
}

async fn open_and_run(transaction: &DatabaseTransaction, work: &Work<'_>) -> Result<Rolled, EngineError> {
    check_stamp(transaction, work).await?;
    let db = DatabaseExecutor::Transaction(transaction);
    let state = State::read(&db, work.has_roles).await?;
    work.run_alone(&db, state).await
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
