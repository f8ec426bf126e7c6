//! Dialling: opens the sealed URL, connects, and reads the database's identity stamp before the connection serves.
//!
//! The URL is in clear text here alone, and only for as long as that takes. Every connection proves the stamp, so that a
//! database that was exchanged underneath is noticed with the next one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::postgres::{PgConnectOptions, PgDatabaseError};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions as _, Error};
use sea_orm::{DbErr, RuntimeErr};
use secrecy::{ExposeSecret as _, SecretString};
use tenancy::TenantId;
use tenancy::route::Route;
use tenancy::seal::{KeyRing, SealError, Sealed, Subject};
use tenancy::share::application_name;
use tenancy::stamp;
use url::Url;
use uuid::Uuid;

use super::anchor::Lifeline;
use super::connection::{Connection, FirstOf, Message as _};

/// How long a statement waits for SQLite's one writer.
const BUSY: Duration = Duration::from_secs(10);
/// What is so for each session on a Postgres server: a statement whose client said goodbye ends within a second, and a session whose
/// client has vanished with its network within some ten.
const SETTINGS: &str = "SET client_connection_check_interval = '1s'; SET tcp_keepalives_idle = '3s'; \
    SET tcp_keepalives_interval = '2s'; SET tcp_keepalives_count = 3; SET tcp_user_timeout = '10s'";
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// The address of every SQLite file: no server answers for several of them.
const FILE: &str = "file";

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The server does not answer. That says the same of all its databases.
    #[error("the database server cannot be reached")]
    ServerAway(#[source] Option<DbErr>),
    /// The server has as many connections as it takes.
    #[error("the database server has as many connections as it takes")]
    ServerFull(#[source] DbErr),
    /// The login role or the database has as many sessions as it may have: that says nothing of the server.
    #[error("the login role or the database has as many sessions as it may have")]
    LimitReached(#[source] DbErr),
    /// The anchor session was lost meanwhile: what this node has of the server's connections may soon be another's.
    #[error("the anchor session on the database server was lost")]
    Adrift,
    /// The server answers, and this database is not to be had now.
    #[error("the database cannot be reached")]
    Unavailable(#[source] Option<DbErr>),
    /// The ring of this node lacks the key that its URL is sealed with.
    #[error(
        "its URL is sealed with the key {0:?}, which [seal.tenants] of this node lacks: add it, and start the node again"
    )]
    KeyMissing(String),
    /// It is not the tenant's database, or its URL is not the tenant's.
    #[error("the database is refused: {0}")]
    Refused(&'static str),
}

impl DialError {
    pub(super) fn of(error: Error, is_file: bool) -> Self {
        let code = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default().into_owned();
        let is_own_limit = is_own_limit(&error);
        let is_line = matches!(error, Error::Io(_) | Error::Tls(_) | Error::Protocol(_));
        let told = DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)));
        match code.as_str() {
            _ if is_file => Self::Unavailable(Some(told)),
            "53300" if is_own_limit => Self::LimitReached(told),
            "53300" => Self::ServerFull(told),
            "57P01" | "57P02" | "57P03" => Self::ServerAway(Some(told)),
            _ if is_line => Self::ServerAway(Some(told)),
            _ => Self::Unavailable(Some(told)),
        }
    }
}

impl DialError {
    /// The outcome, as metrics name it.
    pub(super) const fn outcome(&self) -> &'static str {
        match self {
            Self::ServerAway(_) => "server-away",
            Self::ServerFull(_) => "server-full",
            Self::LimitReached(_) => "limit-reached",
            Self::Adrift => "adrift",
            Self::Unavailable(_) => "unavailable",
            Self::KeyMissing(_) => "key-missing",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether it says the same of all databases of the server.
    pub(super) const fn is_the_servers(&self) -> bool {
        matches!(self, Self::ServerAway(_) | Self::ServerFull(_) | Self::Adrift)
    }
}

/// Says why a tenant has no connection, once for each that was tried.
pub(super) fn tell((tenant, generation): (TenantId, u64), server: &str, error: &DialError) {
    match error {
        DialError::Refused(reason) => {
            tracing::error!(%tenant, generation, server, reason,
                "refused to serve a tenant from a database that is not proven to be its own");
        }
        DialError::KeyMissing(_) => tracing::error!(%tenant, generation, "{error}"),
        DialError::ServerAway(_)
        | DialError::ServerFull(_)
        | DialError::LimitReached(_)
        | DialError::Adrift
        | DialError::Unavailable(_) => {
            let source = std::error::Error::source(error).map(tracing::field::display);
            tracing::warn!(%tenant, generation, server, source, "could not open a connection: {error}");
        }
    }
}

/// What is dialled for a tenant.
pub(super) struct Target {
    ring: Arc<KeyRing>,
    tenant: TenantId,
    subject: Subject,
    sealed: Sealed,
    /// Host and port of the server; the same for all files.
    address: Arc<str>,
    /// The SQLite file, if it is one.
    path: Option<PathBuf>,
}

impl Target {
    /// The target of a route, if this node can open its URL.
    pub(super) fn of(ring: &Arc<KeyRing>, route: &Route) -> Result<Self, DialError> {
        let (subject, sealed) = (route.url_subject(), route.sealed_url.clone());
        let url = open(ring, subject, &sealed)?;
        let path = url.expose_secret().strip_prefix("sqlite://").map(PathBuf::from);
        let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| url.expose_secret().starts_with(scheme));
        let address = match (&path, is_postgres) {
            (Some(_), _) => FILE.into(),
            (None, true) => address_of(&url)?,
            // The driver's error would say it with the whole URL.
            (None, false) => return Err(DialError::Refused("its URL is of no kind that is known here")),
        };
        Ok(Self { ring: Arc::clone(ring), tenant: route.tenant, subject, sealed, address, path })
    }

    pub(super) fn address(&self) -> &Arc<str> {
        &self.address
    }

    pub(super) const fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref()
    }

    /// A proven connection, within this time and while the lifeline of its server holds.
    pub(super) async fn dial(
        &self,
        within: Duration,
        holder: Uuid,
        lifeline: &Arc<Lifeline>,
    ) -> Result<Connection, DialError> {
        // When it ends, dialling is given up at once, and a connection that was opened is dropped.
        lifeline.guard(self.dial_in_time(within, holder)).await.unwrap_or(Err(DialError::Adrift))
    }

    async fn dial_in_time(&self, within: Duration, holder: Uuid) -> Result<Connection, DialError> {
        let begun = tokio::time::Instant::now();
        let connecting = tokio::time::timeout(within, self.connect(holder)).await;
        let mut connection = connecting.unwrap_or(Err(DialError::ServerAway(None)))?;
        // One database that is slow says nothing of its server.
        let proof = tokio::time::timeout_at(begun + within, self.prove(&mut connection)).await;
        match proof.unwrap_or(Err(DialError::Unavailable(None))) {
            Ok(()) => Ok(connection),
            Err(error) => {
                // It was only looked at; whether it closes well does not matter.
                let _ = tokio::time::timeout(GOODBYE, connection.close()).await;
                Err(error)
            }
        }
    }

    async fn connect(&self, holder: Uuid) -> Result<Connection, DialError> {
        let url = open(&self.ring, self.subject, &self.sealed)?;
        let url = url.expose_secret();
        let failed = |error| DialError::of(error, self.path.is_some());
        if self.path.is_some() {
            let options: SqliteConnectOptions = url.parse().map_err(failed)?;
            let options = options
                .create_if_missing(false)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Normal)
                .busy_timeout(BUSY)
                .foreign_keys(true)
                .disable_statement_logging();
            return Connection::of_a_file(options.connect().await.map_err(failed)?).await.map_err(failed);
        }
        let options: PgConnectOptions = url.parse().map_err(failed)?;
        // No parameter that a pooler does not know: it would take no connection. Settings come with the proof.
        let options =
            options.application_name(&application_name(holder)).extra_float_digits(None).disable_statement_logging();
        Ok(Connection::Postgres(options.connect().await.map_err(failed)?))
    }

    async fn prove(&self, connection: &mut Connection) -> Result<(), DialError> {
        // One message, and so one round trip.
        let proof = match connection {
            Connection::Postgres(_) => format!("{SETTINGS}; {}", stamp::SELECT),
            Connection::Sqlite(..) => stamp::SELECT.to_owned(),
        };
        let row = match FirstOf(&proof).send(connection).await {
            Err(error) if service::problem::driver_is_unavailable(&error) || is_setting_refused(&error) => {
                return Err(DialError::of(error, self.path.is_some()));
            }
            // No such table: not one of our databases.
            Err(_) => return Err(DialError::Refused("it has no identity stamp")),
            Ok(row) => row.ok_or(DialError::Refused("its identity stamp is empty"))?,
        };
        let tenant: String =
            row.try_get_by_index(0).map_err(|_| DialError::Refused("its identity stamp is damaged"))?;
        if tenant == self.tenant.to_string() {
            Ok(())
        } else {
            Err(DialError::Refused("its identity stamp names another tenant"))
        }
    }
}

/// Whether the limit of the login role or of the database was reached, and not the server's own. Postgres has one code for all three
/// (53300), and tells them apart by the routine.
fn is_own_limit(error: &Error) -> bool {
    let told = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    told.and_then(PgDatabaseError::routine)
        .is_some_and(|routine| matches!(routine, "InitializeSessionUserId" | "CheckMyDatabase"))
}

/// The server does not have the setting: it is too old, or of another make.
fn is_setting_refused(error: &Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default();
    matches!(&*code, "22023" | "42704")
}

/// Host and port of a Postgres server. The parser's error would say it with the whole URL.
pub(super) fn address_of(url: &SecretString) -> Result<Arc<str>, DialError> {
    let url = Url::parse(url.expose_secret()).map_err(|_| DialError::Refused("its URL is damaged"))?;
    Ok(format!("{}:{}", url.host_str().unwrap_or_default(), url.port().unwrap_or(5432)).into())
}

pub(super) fn open(ring: &KeyRing, subject: Subject, sealed: &Sealed) -> Result<SecretString, DialError> {
    ring.open(subject, sealed).map_err(|error| match error {
        SealError::UnknownKey { key } => DialError::KeyMissing(key),
        SealError::Malformed => DialError::Refused("its URL is damaged"),
        SealError::Refused => DialError::Refused("its URL was sealed for another tenant or generation"),
    })
}
