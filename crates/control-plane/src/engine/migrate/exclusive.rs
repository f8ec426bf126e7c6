//! On SQLite each migration and its record are in an exclusive transaction of their own, also one that asks for none. Nobody
//! else writes meanwhile, and readers see nothing of it before its end. What is to be done is read in each anew: whoever
//! else migrates the database may have done it between two.

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseExecutor, DatabaseTransaction, DbErr, SqliteTransactionMode,
    Statement, TransactionOptions, TransactionTrait,
};
use tenancy::stamp;

use super::state::State;
use super::{Rolled, Work, one};
use crate::engine::EngineError;
use crate::engine::database::{MIGRATIONS, UNFINISHED};
use crate::engine::error::sqlstate;

const WHAT: &str = "migrate the database";

/// The code of what names a table that is not there, among others.
const NO_SUCH_TABLE: &str = "1";

pub(super) async fn one_by_one(db: &DatabaseConnection, work: &Work<'_>) -> Result<Rolled, EngineError> {
    let (mut before, mut left) = (None, usize::MAX);
    loop {
        let ran = work.patience.retry(|| next(db, work)).await?;
        let before = *before.get_or_insert(ran.had);
        if ran.left == 0 {
            return Ok(work.rolled(before, ran.had));
        }
        if ran.left >= left {
            return Err(EngineError::busy(
                "somebody else takes the database the other way now: try again when that has ended",
            ));
        }
        left = ran.left;
    }
}

/// What came of one transaction.
struct Ran {
    /// How many migrations the database had.
    had: usize,
    /// How many are to be run after it.
    left: usize,
    /// What it did.
    what: String,
}

/// Runs the next migration that is to be run, if any is.
async fn next(db: &DatabaseConnection, work: &Work<'_>) -> Result<Ran, EngineError> {
    let options =
        TransactionOptions { sqlite_transaction_mode: Some(SqliteTransactionMode::Exclusive), ..Default::default() };
    let begun = db.begin_with_options(options).await;
    let transaction = begun.map_err(|error| EngineError::of(WHAT, error))?;
    let done = run_in(&transaction, work).await;
    let what = done.as_ref().map(|ran| ran.what.clone()).unwrap_or_default();
    one::end(transaction, &what, done).await
}

async fn run_in(transaction: &DatabaseTransaction, work: &Work<'_>) -> Result<Ran, EngineError> {
    let state = match read_at_once(transaction).await {
        Ok((stamp, state)) => work.is_on(stamp.as_deref()).map(|()| state),
        // A database that was never migrated, or by an older program: one thing after the other, and what is missed is made.
        Err(error) if sqlstate(&error).as_deref() == Some(NO_SUCH_TABLE) => {
            work.check_stamp(transaction).await?;
            State::read(&DatabaseExecutor::Transaction(transaction), work.has_roles).await
        }
        Err(error) => Err(EngineError::of(WHAT, error)),
    }?;
    state.check(&work.migrations)?;
    let steps = state.steps(work.to, work.way);
    let (had, left) = (state.done.len(), steps.len().saturating_sub(1));
    let Some(step) = steps.first() else { return Ok(Ran { had, left, what: WHAT.to_owned() }) };
    let migration = work.migration(*step);
    one::with_record(transaction, migration, *step).await?;
    Ok(Ran { had, left, what: step.what(migration) })
}

/// The stamp and the state, in one statement: for each, another thread is woken and waited for.
async fn read_at_once(transaction: &DatabaseTransaction) -> Result<(Option<String>, State), DbErr> {
    let sql = format!(
        "SELECT position, name, 0 FROM {MIGRATIONS} UNION ALL SELECT position, name, 1 FROM {UNFINISHED} \
         UNION ALL SELECT id, tenant_id, 2 FROM {}",
        stamp::TABLE
    );
    let rows = transaction.query_all_raw(Statement::from_string(transaction.get_database_backend(), sql)).await?;
    let mut of = [const { Vec::new() }; 3];
    for row in rows {
        let which: u32 = row.try_get_by_index(2)?;
        of[which as usize].push(row);
    }
    let [done, begun, stamp] = of;
    let stamp = stamp.first().map(|row| row.try_get_by_index(1)).transpose()?;
    Ok((stamp, State::of(&done, &begun)?))
}
