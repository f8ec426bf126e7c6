//! On Postgres nobody else migrates the database meanwhile. Whoever finds somebody at it does not wait: a session that waits
//! for a lock holds back `CREATE INDEX CONCURRENTLY`, which waits for that session.

use std::sync::Arc;

use futures_util::StreamExt as _;
use sea_orm::sqlx::{AssertSqlSafe, Either, raw_sql};
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseExecutor, DbErr, QueryResult, RuntimeErr, Statement};
use tenancy::stamp;

use super::state::State;
use super::{Rolled, Work};
use crate::engine::EngineError;
use crate::engine::database::{MIGRATIONS, UNFINISHED};
use crate::engine::error::sqlstate;

/// `freehold`, in ASCII: of all keys of advisory locks in a tenant's database this one is ours.
const KEY: i64 = 0x6672_6565_686f_6c64;

/// The code of what names a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

/// The lock is the session's, and ends with it, whatever becomes of us.
pub(super) async fn under_lock(db: &DatabaseConnection, work: &Work<'_>) -> Result<Rolled, EngineError> {
    let done = match open(db, work).await {
        Ok(Some(state)) => work.run_alone(db, state).await,
        Ok(None) => Err(EngineError::busy("somebody else migrates the database now: try again when that has ended")),
        Err(error) => Err(error),
    };
    // However often it was taken; and the limits, which a migration may have set, and one that failed may have left set
    // aside.
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
            let lock = Statement::from_string(db.get_database_backend(), lock());
            if !is_ours(db.query_one_raw(lock).await.map_err(failed)?.as_ref()).map_err(failed)? {
                return Ok(None);
            }
            work.check_stamp(db).await?;
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
    let mut sql = vec![isolation, lock(), State::select(MIGRATIONS), State::select(UNFINISHED)];
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

/// Takes the lock if nobody has it.
fn lock() -> String {
    format!("SELECT pg_try_advisory_lock({KEY})")
}

fn is_ours(row: Option<&QueryResult>) -> Result<bool, DbErr> {
    row.map(|row| row.try_get_by_index(0)).transpose().map(Option::unwrap_or_default)
}
