//! What every pool of database connections of ours has in common.

mod verdict;

use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbBackend, DbErr};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

pub use verdict::Verdict;
pub(crate) use verdict::is_of_an_old_plan;

/// Opens a pool. The driver looks after none of its idle connections: whoever opens it closes it.
///
/// The driver's task for that may spin on a core for ever: it counts idle connections, and a count that was one too low for a
/// moment wraps around (<https://github.com/launchbadge/sqlx/issues/3645>, in sqlx 0.9.0). It begins with the pool, when the
/// first connection comes and goes, so that the more pools are opened, the surer it is to happen.
pub async fn open(options: impl Into<ConnectOptions>) -> Result<DatabaseConnection, DbErr> {
    let mut options = options.into();
    options.idle_timeout(None).max_lifetime(None);
    // In a box: it is large, and would be part of the future of everyone who opens one.
    #[allow(clippy::disallowed_methods, reason = "this is what all others open by")]
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
