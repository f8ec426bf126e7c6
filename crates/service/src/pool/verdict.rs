//! What an error says of the connection that it came by: whether the connection serves on, and whether the statement may be sent
//! once more on another one.

use sea_orm::sqlx::Error;
use sea_orm::sqlx::error::DatabaseError;
use sea_orm::{DbErr, RuntimeErr, SqlxPostgresError, SqlxSqliteError};

/// What becomes of a connection after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The statement failed, and the connection is well.
    Sound,
    /// The connection remembers what is so no longer, and the statement had no effect.
    Stale,
    /// The connection takes no writes, and the statement had no effect.
    ReadOnly,
    /// The connection is gone or going. What became of the statement is not known.
    Lost,
}

impl Verdict {
    /// By the driver's error.
    pub fn of(error: &Error) -> Self {
        match error {
            Error::Io(_) | Error::Tls(_) | Error::Protocol(_) | Error::WorkerCrashed => Self::Lost,
            Error::Database(answer) => Self::of_answer(answer.as_ref()),
            _ => Self::Sound,
        }
    }

    /// By SeaORM's error of a statement. One that got no connection says nothing of those that there are.
    pub fn of_statement(error: &DbErr) -> Self {
        match error {
            DbErr::Exec(RuntimeErr::SqlxError(source)) | DbErr::Query(RuntimeErr::SqlxError(source)) => {
                Self::of(source)
            }
            _ => Self::Sound,
        }
    }

    fn of_answer(answer: &dyn DatabaseError) -> Self {
        let code = answer.code().unwrap_or_default();
        if answer.try_downcast_ref::<SqlxSqliteError>().is_some() {
            // The low byte is the primary code: read-only, I/O error, corrupt, cannot open, not a database.
            let is_spent = code.parse::<i32>().is_ok_and(|code| matches!(code & 0xff, 8 | 10 | 11 | 14 | 26));
            return if is_spent { Self::Lost } else { Self::Sound };
        }
        match &*code {
            // A primary that became a standby: another connection may lead to its successor.
            "25006" => Self::ReadOnly,
            "0A000" if is_of_an_old_plan(answer) => Self::Stale,
            // Shut down, crashed, starting up, dropped, or idle in a transaction for too long: the server ends the session with it.
            "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03" => Self::Lost,
            code if code.starts_with("08") => Self::Lost,
            _ => Self::Sound,
        }
    }
}

/// Of SQLSTATE 0A000: "cached plan must not change result type", told without the words, which are in the server's language.
pub(crate) fn is_of_an_old_plan(answer: &dyn DatabaseError) -> bool {
    let routine = answer.try_downcast_ref::<SqlxPostgresError>().and_then(|error| error.routine());
    routine == Some("RevalidateCachedQuery")
}
