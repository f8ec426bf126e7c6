//! What every pool of database connections of ours has in common.

mod verdict;

use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbBackend, DbErr};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

pub use verdict::Verdict;
pub(crate) use verdict::is_of_an_old_plan;

/// Opens a pool without the driver's maintenance: it closes no connection because it is idle or old. The caller closes the pool.
///
/// The maintenance task of sqlx 0.9.0 may spin on a core for ever: its count of idle connections can wrap around
/// (<https://github.com/launchbadge/sqlx/issues/3645>). Each new pool starts one, so a process that opens many pools will meet it.
pub async fn open(options: impl Into<ConnectOptions>) -> Result<DatabaseConnection, DbErr> {
    let mut options = options.into();
    options.idle_timeout(None).max_lifetime(None);
    // The future is large. Without a box it would be part of every caller's future.
    #[allow(clippy::disallowed_methods, reason = "the one place that opens a pool")]
    Box::pin(Database::connect(options)).await
}

/// Closes a pool, also when whoever waits for that is dropped. Who leaves a SQLite database last puts its log away and waits for
/// the disk, maybe on the thread that closes: on one that nobody else waits for.
pub async fn close(db: DatabaseConnection) -> Result<(), DbErr> {
    if db.get_database_backend() != DbBackend::Sqlite {
        return db.close().await;
    }
    let runtime = Handle::current();
    let closing = spawn_blocking(move || runtime.block_on(db.close()));
    closing.await.unwrap_or_else(|error| Err(DbErr::Custom(error.to_string())))
}
