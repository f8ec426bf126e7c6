//! Dialling: open the sealed URL, connect, and read the database's identity stamp before anybody gets the connection.
//!
//! The URL is in clear text here alone, and only for as long as that takes.

use std::path::PathBuf;
use std::time::Duration;

use sea_orm::sqlx::sqlite::{SqliteJournalMode, SqliteSynchronous};
use sea_orm::{ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DbErr, Statement};
use secrecy::{ExposeSecret, SecretString};
use service::pool::{close, without_upkeep};
use tenancy::route::Route;
use tenancy::seal::{KeyRing, SealError};
use tenancy::stamp;
use tokio::net::TcpStream;
use url::Url;

/// How long a request waits for a connection of its tenant's pool.
const ACQUIRE: Duration = Duration::from_secs(10);
/// How long a server may take to be reached at all.
const REACH: Duration = Duration::from_secs(2);
/// How long connecting may take: many cold tenants at once are many logins at once.
const CONNECT: Duration = Duration::from_secs(15);
/// A connection that was idle for this long is tested before its next use. Testing each use halves throughput.
const TEST_AFTER: Duration = Duration::from_secs(5);

/// Why there is no pool.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    /// It may work later.
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

impl From<DbErr> for DialError {
    fn from(error: DbErr) -> Self {
        Self::Unavailable(Some(error))
    }
}

/// A proven pool, and the path of its file if it is one.
pub(super) async fn dial(ring: &KeyRing, route: &Route) -> Result<(DatabaseConnection, Option<PathBuf>), DialError> {
    let url = ring.open(route.url_subject(), &route.sealed_url).map_err(|error| match error {
        SealError::UnknownKey { key } => DialError::KeyMissing(key),
        SealError::Malformed => DialError::Refused("its URL is damaged"),
        SealError::Refused => DialError::Refused("its URL was sealed for another tenant or generation"),
    })?;
    let path = url.expose_secret().strip_prefix("sqlite://").map(PathBuf::from);
    let is_postgres = ["postgres://", "postgresql://"].iter().any(|scheme| url.expose_secret().starts_with(scheme));
    if path.is_none() && !is_postgres {
        // The driver's error would say it with the whole URL.
        return Err(DialError::Refused("its URL is of no kind that is known here"));
    }
    let connections = if path.is_some() { route.plan.connections.get().min(4) } else { route.plan.connections.get() };
    if path.is_none() {
        reach(&url).await?;
    }
    // SeaORM's own bound on connecting is the pool's patience, not this one.
    let connecting = tokio::time::timeout(CONNECT, Database::connect(options(&url, connections)));
    let db = connecting.await.map_err(|_| DialError::Unavailable(None))??;
    let proof = tokio::time::timeout(CONNECT, prove(&db, route)).await;
    match proof.unwrap_or(Err(DialError::Unavailable(None))) {
        Ok(()) => Ok((db, path)),
        Err(error) => {
            // It was only looked at; whether it closes well does not matter.
            let _ = close(db).await;
            Err(error)
        }
    }
}

/// A pool tries again and again at a server that refuses it; a request should hear at once that it is gone.
async fn reach(url: &SecretString) -> Result<(), DialError> {
    let gone = || DialError::Unavailable(None);
    let url = Url::parse(url.expose_secret()).map_err(|_| gone())?;
    let address = (url.host_str().ok_or_else(gone)?.trim_matches(['[', ']']), url.port().unwrap_or(5432));
    match tokio::time::timeout(REACH, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(gone()),
    }
}

async fn prove(db: &DatabaseConnection, route: &Route) -> Result<(), DialError> {
    let statement = Statement::from_string(db.get_database_backend(), stamp::SELECT);
    let row = match db.query_one_raw(statement).await {
        Err(error) if service::problem::is_unavailable(&error) => return Err(error.into()),
        // No such table: not one of our databases.
        Err(_) => return Err(DialError::Refused("it has no identity stamp")),
        Ok(row) => row.ok_or(DialError::Refused("its identity stamp is empty"))?,
    };
    let tenant: String = row.try_get_by_index(0)?;
    if tenant == route.tenant.to_string() {
        Ok(())
    } else {
        Err(DialError::Refused("its identity stamp names another tenant"))
    }
}

fn options(url: &SecretString, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url.expose_secret().to_owned());
    without_upkeep(&mut options)
        .max_connections(connections)
        .min_connections(0)
        .acquire_timeout(ACQUIRE)
        .connect_timeout(CONNECT)
        .sqlx_logging(false)
        .test_before_acquire(false)
        .test_before_acquire_if_idle_for(TEST_AFTER)
        .map_sqlx_postgres_opts(|options| options.application_name("freehold-data-plane"))
        .map_sqlx_sqlite_opts(|options| {
            options
                .create_if_missing(false)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Normal)
                .busy_timeout(ACQUIRE)
                .foreign_keys(true)
        });
    options
}
