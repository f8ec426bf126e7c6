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
use crate::engine::{EngineError, database, sqlite};

/// `freehold`, in ASCII: of all keys of advisory locks in a tenant's database this one is ours.
const KEY: i64 = 0x6672_6565_686f_6c64;

/// On Postgres: the lock is the session's, and ends with it, whatever becomes of us.
pub(super) async fn under_lock(db: &DatabaseConnection, work: &Work<'_>) -> Result<Rolled, EngineError> {
    let opened = match Opened::at_once(db, work).await {
        Ok(opened) => opened,
        // Mostly what is read is not there yet.
        Err(_) => Opened::one_by_one(db, work).await?,
    };
    let done = match opened {
        Opened::Busy => {
            Err(EngineError::busy("somebody else migrates the database now: try again when that has ended"))
        }
        Opened::Ours { stamp, state } => match work.is_on(stamp.as_deref()) {
            Ok(()) => work.run_alone(&DatabaseExecutor::Connection(db), state).await,
            Err(error) => Err(error),
        },
    };
    // However often it was taken.
    let freed = "SELECT pg_advisory_unlock_all(); RESET lock_timeout; RESET statement_timeout";
    if let Err(error) = db.execute_unprepared(freed).await {
        // It is free all the same, for it was the session's that is gone.
        tracing::debug!(%error, "the session that migrated a database ended before it was told to");
    }
    done
}

/// How a database was found.
enum Opened {
    /// Somebody else has the lock.
    Busy,
    /// The lock is ours, and this was so since. The stamp is read where it matters whose the database is.
    Ours { stamp: Option<String>, state: State },
}

impl Opened {
    /// In one message: a session that was just made is asked three things in the time of one.
    async fn at_once(db: &DatabaseConnection, work: &Work<'_>) -> Result<Self, DbErr> {
        // A statement of its own for each: what one sees was committed before it began, and so before the lock was ours.
        let mut sql = vec![lock(work.patience), State::select(MIGRATIONS), State::select(UNFINISHED)];
        sql.extend(work.whose.map(|_| stamp::SELECT.to_owned()));
        let mut answers = raw_sql(AssertSqlSafe(sql.join("; "))).fetch_many(db.get_postgres_connection_pool());
        let (mut statement, mut rows) = (0, [const { Vec::new() }; 4]);
        while let Some(answer) = answers.next().await {
            match answer.map_err(|error| DbErr::Query(RuntimeErr::SqlxError(Arc::new(error))))? {
                Either::Left(_) => statement = (statement + 1) % rows.len(),
                Either::Right(row) => rows[statement].push(QueryResult::from(row)),
            }
        }
        let [locked, done, begun, stamp] = rows;
        if !is_ours(locked.first())? {
            return Ok(Self::Busy);
        }
        let stamp = stamp.first().map(|row| row.try_get_by_index(0)).transpose()?;
        Ok(Self::Ours { stamp, state: State::of(&done, &begun)? })
    }

    /// One thing after the other: makes what is not there, and says what goes wrong.
    async fn one_by_one(db: &DatabaseConnection, work: &Work<'_>) -> Result<Self, EngineError> {
        let failed = |error| EngineError::of("lock the database's migrations", error);
        let lock = Statement::from_string(db.get_database_backend(), lock(work.patience));
        if !is_ours(db.query_one_raw(lock).await.map_err(failed)?.as_ref()).map_err(failed)? {
            return Ok(Self::Busy);
        }
        let stamp = stamp_of(db, work).await?;
        Ok(Self::Ours { stamp, state: State::read(&DatabaseExecutor::Connection(db), work.has_roles).await? })
    }
}

/// Takes the lock if nobody has it, and sets the session's limits.
fn lock(patience: &Patience) -> String {
    let [lock, statement] = limits(patience);
    format!(
        "SELECT pg_try_advisory_lock({KEY}), set_config('lock_timeout', '{lock}', false), \
         set_config('statement_timeout', '{statement}', false)"
    )
}

/// The stamp, where it matters whose the database is: nothing is made in one that is another's.
async fn stamp_of(db: &impl ConnectionTrait, work: &Work<'_>) -> Result<Option<String>, EngineError> {
    let stamp = if work.whose.is_some() { database::stamped(db).await? } else { None };
    work.is_on(stamp.as_deref()).map(|()| stamp)
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
    stamp_of(transaction, work).await?;
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
