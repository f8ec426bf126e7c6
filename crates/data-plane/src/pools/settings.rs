//! How one server's connections are kept, as configuration and engine say.

use std::num::NonZeroU32;
use std::time::Duration;

use uuid::Uuid;

use super::metrics::Closed;
use crate::config::PoolsConfig;

/// Bounds of one server's pool.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// The process by which the server's sessions of this node are called.
    pub(super) holder: Uuid,
    /// How long a statement waits for a connection.
    pub(super) wait: Duration,
    /// How long opening one may take.
    pub(super) dial: Duration,
    /// Connections that are opened at once.
    pub(super) openings: u32,
    /// Connections that are opened in a second; none for files.
    pub(super) connect_rate: Option<NonZeroU32>,
    /// An idle connection is closed after this time.
    pub(super) idle: Duration,
    /// Every connection is replaced after this time, or up to a fifth earlier.
    pub(super) lifetime: Duration,
    /// A connection that was used within this time gives way to no other tenant.
    pub(super) youngest: Duration,
    /// How long a failed dial answers for the next requests of its tenant.
    pub(super) failed_for: Duration,
    /// How long a statement may take before its connection is given up.
    pub(super) statement: Duration,
}

/// Of SQLite files, no server has to be spared.
const FILES_AT_ONCE: u32 = 64;

impl Settings {
    pub(super) fn of(config: &PoolsConfig, holder: Uuid) -> Self {
        Self {
            holder,
            wait: Duration::from_millis(config.wait_ms.get().into()),
            dial: Duration::from_millis(config.dial_ms.get().into()),
            openings: config.openings.get(),
            connect_rate: Some(config.connect_rate),
            idle: Duration::from_secs(config.idle_seconds),
            lifetime: Duration::from_secs(config.lifetime_seconds.get().into()),
            youngest: Duration::from_millis(config.youngest_ms),
            failed_for: Duration::from_millis(500),
            statement: Duration::from_secs(config.statement_seconds.get().into()),
        }
    }

    /// The same for files.
    pub(super) fn for_files(&self) -> Self {
        Self { openings: FILES_AT_ONCE, connect_rate: None, ..self.clone() }
    }
}

/// How long a server's process lives on after its client said goodbye.
const LEAVES_WITHIN: Duration = Duration::from_millis(20);
/// How long one lives on whose client went in the middle of a statement: `client_connection_check_interval`, and a moment.
const NOTICES_WITHIN: Duration = Duration::from_millis(1_100);

impl Settings {
    /// How long after our side is closed the server's side may still be there.
    #[allow(clippy::unused_self, reason = "one of all that bounds a server's pool")]
    pub(super) const fn lag(&self, why: Closed) -> Duration {
        if matches!(why, Closed::Broken) { NOTICES_WITHIN } else { LEAVES_WITHIN }
    }
}
