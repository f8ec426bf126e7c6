//! A pool's own answer: it has no connection to give, and knows better than the driver why.
//!
//! It passes through SeaORM as an error of the driver, and comes out as the problem that the pool meant.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sea_orm::{DbErr, RuntimeErr, SqlxError};

use super::Problem;

/// Why a pool gives no connection: the problem's kind, its public text, and when to try again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct NoConnection {
    kind: &'static str,
    detail: String,
    retry_after: Duration,
    #[source]
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl NoConnection {
    /// An answer of this kind, with status 503.
    pub fn new(kind: &'static str, detail: impl Into<String>, retry_after: Duration) -> Self {
        Self { kind, detail: detail.into(), retry_after, source: None }
    }

    /// The cause, for the log.
    #[must_use]
    pub fn with_source(self, source: Arc<dyn std::error::Error + Send + Sync>) -> Self {
        Self { source: Some(source), ..self }
    }

    /// What a pool answered, if this error is a pool's.
    pub(super) fn of(error: &DbErr) -> Option<&Self> {
        let DbErr::Conn(RuntimeErr::SqlxError(driver)) = error else { return None };
        let SqlxError::Configuration(carried) = driver.as_ref() else { return None };
        carried.downcast_ref()
    }
}

impl From<NoConnection> for DbErr {
    fn from(answer: NoConnection) -> Self {
        Self::Conn(RuntimeErr::SqlxError(Arc::new(SqlxError::Configuration(Box::new(answer)))))
    }
}

impl From<NoConnection> for Problem {
    fn from(answer: NoConnection) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, answer.kind, answer.detail.clone())
            .with_retry_after(answer.retry_after);
        match answer.source {
            Some(source) => problem.with_source(source),
            None => problem,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_answer_passes_through_the_driver() {
        let answer = NoConnection::new("server-busy", "Come again.", Duration::from_secs(1));
        let problem = Problem::from(DbErr::from(answer));
        assert_eq!((problem.kind(), problem.status().as_u16(), problem.detail()), ("server-busy", 503, "Come again."));
        let other = DbErr::Conn(RuntimeErr::SqlxError(Arc::new(SqlxError::Configuration("other".into()))));
        assert_eq!(Problem::from(other).kind(), "database-unavailable");
    }
}
