//! What a database's error means to a caller: 503 while the database cannot be reached, and heals
//! by itself; 500 for all else. The error's own text is a source and is never sent.

use std::time::Duration;

use http::StatusCode;
use sea_orm::{DbErr, RuntimeErr, SqlxError, sqlx::error::DatabaseError};

use super::{NoConnection, Problem};
use crate::pool::is_of_an_old_plan;

impl From<DbErr> for Problem {
    fn from(error: DbErr) -> Self {
        if let Some(answer) = NoConnection::of(&error) {
            answer.clone().into()
        } else if is_unavailable(&error) {
            Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "database-unavailable",
                "The database cannot be reached now. Send the request again after the time in the \
                 Retry-After header.",
            )
            .with_retry_after(Duration::from_secs(1))
            .with_source(error)
        } else if is_untranslatable(&error) {
            Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "text-not-storable",
                "A text has a character that cannot be stored, such as NUL. Send it without.",
            )
            .with_source(error)
        } else {
            Self::internal(error)
        }
    }
}

/// Whether the error says that the database could not be reached or may not be used now, rather
/// than that it refused what it was asked.
pub fn is_unavailable(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => true,
        DbErr::Exec(RuntimeErr::SqlxError(source)) | DbErr::Query(RuntimeErr::SqlxError(source)) => {
            driver_is_unavailable(source)
        }
        _ => false,
    }
}

/// Whether Postgres could not take a text: SQLSTATE 22021 for NUL in text, 22P05 for `\u0000` in JSON.
fn is_untranslatable(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(source)) | DbErr::Query(RuntimeErr::SqlxError(source))) = error else {
        return false;
    };
    matches!(source.as_ref(), SqlxError::Database(answer)
        if !is_sqlite(answer.as_ref()) && matches!(answer.code().as_deref(), Some("22021" | "22P05")))
}

/// As [`is_unavailable`], of the driver's own error.
pub fn driver_is_unavailable(error: &SqlxError) -> bool {
    match error {
        SqlxError::Io(_)
        | SqlxError::Tls(_)
        | SqlxError::PoolTimedOut
        | SqlxError::PoolClosed
        | SqlxError::WorkerCrashed => true,
        SqlxError::Database(answer) => {
            let code = answer.code().unwrap_or_default();
            if is_sqlite(answer.as_ref()) {
                sqlite_is_unavailable(&code)
            } else {
                // Of an old plan: on another connection it succeeds.
                postgres_is_unavailable(&code) || code == "0A000" && is_of_an_old_plan(answer.as_ref())
            }
        }
        _ => false,
    }
}

fn is_sqlite(error: &dyn DatabaseError) -> bool {
    error.try_downcast_ref::<sea_orm::SqlxSqliteError>().is_some()
}

/// SQLSTATEs of Postgres (appendix A of its manual): connection exceptions (class 08), too many
/// connections, shutdown, crash, starting up, database dropped, a standby that takes no writes, and a lock that was not had in
/// time.
fn postgres_is_unavailable(code: &str) -> bool {
    code.starts_with("08") || matches!(code, "53300" | "57P01" | "57P02" | "57P03" | "57P04" | "25006" | "55P03")
}

/// Primary result codes of SQLite (sqlite.org/rescode.html), the low byte of the extended ones:
/// busy, read-only, I/O error, corrupt, full, cannot open, not a database.
fn sqlite_is_unavailable(code: &str) -> bool {
    code.parse::<i32>().is_ok_and(|code| matches!(code & 0xff, 5 | 8 | 10 | 11 | 13 | 14 | 26))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use sea_orm::ConnAcquireErr;

    fn failed_query(error: SqlxError) -> DbErr {
        DbErr::Query(RuntimeErr::SqlxError(Arc::new(error)))
    }

    #[test]
    fn a_lost_database_is_503_with_a_wait_and_a_wrong_query_500() {
        for lost in [
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout),
            failed_query(SqlxError::Io(std::io::ErrorKind::ConnectionReset.into())),
            failed_query(SqlxError::PoolClosed),
        ] {
            let problem = Problem::from(lost);
            assert_eq!(problem.kind(), "database-unavailable");
            assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        }
        let wrong = Problem::from(failed_query(SqlxError::ColumnNotFound("secret".into())));
        assert_eq!(wrong.kind(), "internal");
        assert!(!wrong.detail().contains("secret"));
    }

    #[test]
    fn codes_of_a_database_that_is_away_are_told_from_those_of_a_refusal() {
        for away in ["57P01", "57P02", "57P03", "53300", "08006"] {
            assert!(postgres_is_unavailable(away), "{away}");
        }
        for refusal in ["23505", "42P01", "22001"] {
            assert!(!postgres_is_unavailable(refusal), "{refusal}");
        }
        // 1032 is SQLITE_READONLY_DBMOVED: the file was deleted under an open connection.
        for away in ["14", "26", "1032", "266"] {
            assert!(sqlite_is_unavailable(away), "{away}");
        }
        // A unique key, a missing table.
        for refusal in ["2067", "1"] {
            assert!(!sqlite_is_unavailable(refusal), "{refusal}");
        }
    }
}
