//! What can go wrong with a server, said for an operator; the driver's own words stay private.

use sea_orm::{DbErr, RuntimeErr, SqlxError};

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It will not work, however often it is tried: something is not as it must be.
    Refused,
    /// The server cannot be worked now: it may work later.
    Unavailable,
    /// Somebody else has what it needs: it may work later.
    Busy,
    /// A migration was run, and failed by itself, on this database's data or by its own fault.
    Failed,
}

/// Why a server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct EngineError {
    detail: String,
    kind: Kind,
    #[source]
    source: Option<DbErr>,
}

impl EngineError {
    /// It will not work, however often it is tried.
    pub(crate) fn refused(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), kind: Kind::Refused, source: None }
    }

    /// It may work later.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), kind: Kind::Unavailable, source: None }
    }

    /// Somebody else is at it.
    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), kind: Kind::Busy, source: None }
    }

    /// A migration failed by itself.
    pub(super) fn failed(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), kind: Kind::Failed, source: None }
    }

    /// What a driver's error means that a migration met.
    pub(super) fn of_migration(what: &str, source: DbErr) -> Self {
        let code = sqlstate(&source).unwrap_or_default();
        let error = Self::of(what, source);
        if code == CANCELED {
            let detail = format!(
                "could not {what}: it ran for longer than a statement may, or was canceled; raise the statement's time \
                 limit, or do it in smaller parts"
            );
            return Self { detail, kind: Kind::Failed, ..error };
        }
        if error.kind != Kind::Refused {
            return error;
        }
        let why = error.source.as_ref().map(reason).unwrap_or_default();
        let detail = format!("could not {what}: {why}; the control plane's log has the server's words");
        Self { detail, kind: Kind::Failed, ..error }
    }

    /// What a driver's error means here.
    pub(super) fn of(what: &str, source: DbErr) -> Self {
        let code = sqlstate(&source).unwrap_or_default();
        // Bad name or password, no such database, no right to enter it: a server that answers, and says no.
        let is_closed =
            matches!(source, DbErr::Conn(_)) && (code.starts_with("28") || code == "3D000" || code == "42501");
        // A password may be on its way from the server to the registry.
        let may_pass_soon = code == "28P01" || !is_closed;
        let is_busy = is_busy(&code);
        let is_unavailable = may_pass_soon && (may_pass(&code) || service::problem::is_unavailable(&source));
        let detail = if is_closed {
            format!(
                "could not {what}: the server takes no such user, password or database; check the server's admin URL"
            )
        } else if matches!(code.as_str(), "53100" | "13") {
            format!("could not {what}: the server's disk is full; make room on it, or place on another server")
        } else if is_input_output(&code) {
            format!(
                "could not {what}: its files could not be read or written; see whether the disk is full, or failing"
            )
        } else if code == "53300" {
            format!(
                "could not {what}: the server has no connection left; raise its max_connections or the role's or database's \
                 CONNECTION LIMIT, or lower connection budgets"
            )
        } else if is_busy {
            format!("could not {what}: others hold what it needs, and did not let go of it in time; try again later")
        } else if may_pass(&code) {
            format!("could not {what}: something else on the server was in the way")
        } else if is_unavailable {
            format!("could not {what}: the server does not answer, or takes no connection now")
        } else {
            format!("could not {what}: the server refused it; the control plane's log has its words")
        };
        let kind = match (is_busy, is_unavailable) {
            (true, _) => Kind::Busy,
            (false, true) => Kind::Unavailable,
            (false, false) => Kind::Refused,
        };
        Self { detail, kind, source: Some(source) }
    }

    /// What the server itself called it, if it said so.
    pub(super) fn sqlstate(&self) -> Option<String> {
        self.source.as_ref().and_then(sqlstate)
    }

    /// What is to be done about it.
    #[cfg(test)]
    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether a later attempt may succeed.
    pub(crate) const fn is_unavailable(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::Busy)
    }

    /// Whether somebody else is at it.
    pub(crate) const fn is_busy(&self) -> bool {
        matches!(self.kind, Kind::Busy)
    }
}

/// `query_canceled`: by a timeout or by somebody.
const CANCELED: &str = "57014";

/// Longest part of a migration's own words that is told.
const LONGEST_WORDS: usize = 300;

/// SQLite's primary code (the low byte), where it is one of SQLite's and no SQLSTATE.
fn of_sqlite(code: &str) -> Option<i32> {
    if code.len() < 5 { code.parse().ok().map(|code: i32| code & 0xff) } else { None }
}

/// SQLSTATEs of a lock that was not had in time, and of a deadlock; SQLite's of a database and of a table that are locked.
fn is_busy(code: &str) -> bool {
    matches!(code, "55P03" | "40P01") || matches!(of_sqlite(code), Some(5 | 6))
}

/// SQLite's of a file that could not be read or written, or not be made as long as it must be.
fn is_input_output(code: &str) -> bool {
    of_sqlite(code) == Some(10)
}

/// Why a migration failed, for operators: what it says itself, or what the server calls it and where that was. The server's
/// own sentence may have a tenant's data in it.
fn reason(error: &DbErr) -> String {
    if let DbErr::Custom(words) | DbErr::Migration(words) | DbErr::Type(words) = error {
        return words.chars().take(LONGEST_WORDS).collect();
    }
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return "it could not be run".to_owned();
    };
    let SqlxError::Database(answer) = error.as_ref() else { return "the driver refused it".to_owned() };
    let mut why = format!("the server refused it with {}", answer.code().unwrap_or_default());
    for (what, name) in [("table", answer.table()), ("constraint", answer.constraint())] {
        if let Some(name) = name {
            why.extend([", ", what, " ", name]);
        }
    }
    why
}

/// SQLSTATEs of what another attempt may get past: serialization failure, deadlock, object in use, lock not available,
/// query canceled by a timeout, a password that is being changed, an I/O error, and `internal_error`, which is what concurrent
/// changes to one role are answered with. `13` is SQLite's for a full disk.
fn may_pass(code: &str) -> bool {
    // Class 53: no room on the disk, no memory, no connection left.
    code.starts_with("53")
        || is_input_output(code)
        || matches!(code, "13" | "28P01" | "40001" | "40P01" | "55006" | "55P03" | "57014" | "58030" | "XX000")
}

/// The SQLSTATE of a deadlock.
const DEADLOCK: &str = "40P01";

/// Whether the server ended it, for two waited for each other.
pub(crate) fn is_deadlock(error: &DbErr) -> bool {
    sqlstate(error).is_some_and(|code| code == DEADLOCK)
}

pub(super) fn sqlstate(error: &DbErr) -> Option<String> {
    let (DbErr::Conn(error) | DbErr::Exec(error) | DbErr::Query(error)) = error else { return None };
    let RuntimeErr::SqlxError(error) = error else { return None };
    let SqlxError::Database(answer) = error.as_ref() else { return None };
    answer.code().map(Into::into)
}

impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        Self::unavailable(format!("the folder of the databases cannot be used: {error}"))
    }
}
