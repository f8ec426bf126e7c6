//! What can go wrong with a server, said for an operator; the driver's own words stay private.

use sea_orm::{DbErr, RuntimeErr, SqlxError};

/// Why a server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct EngineError {
    detail: String,
    is_unavailable: bool,
    #[source]
    source: Option<DbErr>,
}

impl EngineError {
    /// It will not work, however often it is tried.
    pub(crate) fn refused(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), is_unavailable: false, source: None }
    }

    /// It may work later.
    pub(crate) fn unavailable(detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), is_unavailable: true, source: None }
    }

    /// What a driver's error means here.
    pub(super) fn of(what: &str, source: DbErr) -> Self {
        let code = sqlstate(&source).unwrap_or_default();
        // Bad name or password, no such database, no right to enter it: a server that answers, and says no.
        let is_closed =
            matches!(source, DbErr::Conn(_)) && (code.starts_with("28") || code == "3D000" || code == "42501");
        // A password may be on its way from the server to the registry.
        let may_pass_soon = code == "28P01" || !is_closed;
        let is_unavailable = may_pass_soon && (may_pass(&code) || service::problem::is_unavailable(&source));
        let detail = if is_closed {
            format!(
                "could not {what}: the server takes no such user, password or database; check the server's admin URL"
            )
        } else if matches!(code.as_str(), "53100" | "13") {
            format!("could not {what}: the server's disk is full; make room on it, or place on another server")
        } else if code == "53300" {
            format!(
                "could not {what}: the server has no connection left; raise its max_connections or the role's or database's \
                 CONNECTION LIMIT, or lower connection budgets"
            )
        } else if may_pass(&code) {
            format!("could not {what}: something else on the server was in the way")
        } else if is_unavailable {
            format!("could not {what}: the server does not answer, or takes no connection now")
        } else {
            format!("could not {what}: the server refused it; the control plane's log has its words")
        };
        Self { detail, is_unavailable, source: Some(source) }
    }

    /// What the server itself called it, if it said so.
    pub(super) fn sqlstate(&self) -> Option<String> {
        self.source.as_ref().and_then(sqlstate)
    }

    /// Whether a later attempt may succeed.
    pub(crate) const fn is_unavailable(&self) -> bool {
        self.is_unavailable
    }
}

/// SQLSTATEs of what another attempt may get past: serialization failure, deadlock, object in use, lock not available,
/// query canceled by a timeout, a password that is being changed, an I/O error, and `internal_error`, which is what concurrent
/// changes to one role are answered with. `13` is SQLite's for a full disk.
fn may_pass(code: &str) -> bool {
    // Class 53: no room on the disk, no memory, no connection left.
    code.starts_with("53")
        || matches!(code, "13" | "28P01" | "40001" | "40P01" | "55006" | "55P03" | "57014" | "58030" | "XX000")
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
