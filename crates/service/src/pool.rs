//! What every pool of database connections of ours has in common.

use sea_orm::ConnectOptions;

/// Has the driver look after no idle connections of this pool: whoever opens it closes it.
///
/// Its task for that may spin on a core for ever: it counts idle connections, and a count that was one too low for a moment
/// wraps around (<https://github.com/launchbadge/sqlx/issues/3645>, in sqlx 0.9.0). It begins with the pool, when the first
/// connection comes and goes, so that the more pools are opened, the surer it is to happen.
pub fn without_upkeep(options: &mut ConnectOptions) -> &mut ConnectOptions {
    options.idle_timeout(None).max_lifetime(None)
}
