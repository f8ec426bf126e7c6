//! What a request is answered that gets no connection: each reason has a kind of problem of its own, and says what to do.

use std::sync::Arc;
use std::time::Duration;

use service::problem::NoConnection;

use super::dial::DialError;

/// The kind of problem of a database that is not proven to be its tenant's.
pub(crate) const REFUSED: &str = "database-refused";

/// Why a request got no connection.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// All connections that this node may have to the server stayed in use for as long as a request waits.
    ServerBusy,
    /// All connections that the tenant's plan gives it stayed in use for as long as a request waits.
    PoolExhausted(u32),
    /// All connections that a tenant may have to its file stayed in use for as long as a request waits.
    FileExhausted(u32),
    /// A connection could not be opened.
    NotOpened(Arc<DialError>),
}

impl Refusal {
    /// The reason, as metrics name it.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::ServerBusy => "server-busy",
            Self::PoolExhausted(_) | Self::FileExhausted(_) => "pool-exhausted",
            Self::NotOpened(error) => match **error {
                DialError::ServerFull(_) => "server-full",
                DialError::ServerAway(_) | DialError::Adrift => "server-away",
                DialError::Unavailable(_) | DialError::LimitReached(_) => "database-unavailable",
                DialError::KeyMissing(_) => "key-missing",
                DialError::Refused(_) => REFUSED,
            },
        }
    }
}

impl From<Refusal> for NoConnection {
    fn from(refusal: Refusal) -> Self {
        let (kind, detail) = match &refusal {
            Refusal::ServerBusy => (
                "server-busy",
                "No connection to the tenant's database server became free in time, and none could be opened. Send the request again after \
                 the time in Retry-After."
                    .to_owned(),
            ),
            Refusal::PoolExhausted(most) => (
                "pool-exhausted",
                format!(
                    "All {most} database connections of the tenant's plan are in use. Send the request again after the time \
                     in Retry-After, send fewer at once, or choose a plan with more connections."
                ),
            ),
            Refusal::FileExhausted(most) => (
                "pool-exhausted",
                format!(
                    "All {most} connections that a tenant may have to its SQLite database are in use. Send the request again after the \
                     time in Retry-After, or send fewer at once."
                ),
            ),
            Refusal::NotOpened(error) => match **error {
                DialError::ServerFull(_) => (
                    "server-busy",
                    "The tenant's database server has as many connections as it takes. Send the request again after the \
                     time in Retry-After."
                        .to_owned(),
                ),
                DialError::ServerAway(_)
                | DialError::Adrift
                | DialError::LimitReached(_)
                | DialError::Unavailable(_) => (
                    "database-unavailable",
                    "The tenant's database cannot be reached now. Send the request again after the time in Retry-After."
                        .to_owned(),
                ),
                DialError::KeyMissing(_) => (
                    "key-missing",
                    "This node lacks the key that opens the tenant's database URL. Tell the operators of the service: the \
                     node's log names the key."
                        .to_owned(),
                ),
                DialError::Refused(_) => (
                    REFUSED,
                    "The tenant's database is not proven to be its own and is not served. Tell the operators of the service."
                        .to_owned(),
                ),
            },
        };
        let retry_after = Duration::from_secs(1);
        let answer = Self::new(kind, detail, retry_after);
        match refusal {
            Refusal::NotOpened(error) => answer.with_source(error),
            _ => answer,
        }
    }
}
