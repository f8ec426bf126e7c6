//! What can go wrong with a server, said for an operator; the driver's own words stay private.

use sea_orm::DbErr;

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
        let is_unavailable = service::problem::is_unavailable(&source);
        let detail = if is_unavailable {
            format!("could not {what}: the server does not answer, or takes no connection now")
        } else {
            format!("could not {what}: the server refused it; the control plane's log has its words")
        };
        Self { detail, is_unavailable, source: Some(source) }
    }

    /// Whether a later attempt may succeed.
    pub(crate) const fn is_unavailable(&self) -> bool {
        self.is_unavailable
    }
}

impl From<std::io::Error> for EngineError {
    fn from(error: std::io::Error) -> Self {
        Self::unavailable(format!("the folder of the databases cannot be used: {error}"))
    }
}
