//! `[pools]`: what is kept open, and how long a request waits for it.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use service::config::Invalid;
use service::system;

/// `[pools]`: bounds of the connections to tenants' databases.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PoolsConfig {
    /// Tenants at most whose pools are kept, with or without connections; the one used longest ago gives way.
    pub max: u64,
    /// Tenants at most whose routes are kept.
    pub max_routes: u64,
    /// Seconds after which an idle connection is closed.
    pub idle_seconds: u64,
    /// Connections to SQLite files that this node may have in all; by default as many as the system allows.
    pub sqlite_connections: Option<NonZeroU32>,
    /// Milliseconds that a statement waits for a connection.
    pub wait_ms: NonZeroU32,
    /// Milliseconds that opening a connection may take.
    pub dial_ms: NonZeroU32,
    /// Connections that are opened at once, to each server.
    pub openings: NonZeroU32,
    /// Connections that are opened in a second, to each server that the control plane names no other number for.
    pub connect_rate: NonZeroU32,
    /// Seconds after which a connection is replaced, or up to a fifth earlier.
    pub lifetime_seconds: NonZeroU32,
    /// Milliseconds after its last use in which a connection gives way to no other tenant.
    pub youngest_ms: u64,
    /// Seconds that a statement may take before its connection is given up.
    pub statement_seconds: NonZeroU32,
}

/// How many connections to SQLite files this node may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileBound {
    pub(crate) connections: u32,
    /// The limit that bounds them.
    pub(crate) by: &'static str,
    /// More were wanted.
    pub(crate) is_short: bool,
}

/// Something that connections to files take of the system.
struct Room {
    limit: &'static str,
    there_is: u64,
    /// What is left to all else.
    spared: u64,
    /// What one connection takes.
    each: u64,
}

/// Connections that are possible even where the system seems to allow none.
const FEWEST: u64 = 16;

impl Default for PoolsConfig {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self {
            max: 100_000,
            max_routes: 100_000,
            idle_seconds: 600,
            sqlite_connections: None,
            wait_ms: number(3_000),
            dial_ms: number(2_500),
            openings: number(8),
            connect_rate: number(200),
            lifetime_seconds: number(1_800),
            youngest_ms: 0,
            statement_seconds: number(35),
        }
    }
}

impl PoolsConfig {
    pub(super) fn validate(&self) -> Result<(), Invalid> {
        if !(1..=1_000_000).contains(&self.max) {
            return Err(Invalid::new("max", "must be from 1 to 1000000"));
        }
        if !(1..=10_000_000).contains(&self.max_routes) {
            return Err(Invalid::new("max_routes", "must be from 1 to 10000000"));
        }
        if self.idle_seconds == 0 {
            return Err(Invalid::new("idle_seconds", "must be at least 1"));
        }
        if self.dial_ms > self.wait_ms {
            return Err(Invalid::new("dial_ms", "must be at most wait_ms: no request waits longer for a connection"));
        }
        Ok(())
    }

    /// Connections to SQLite files at most, within what the system lets the process have.
    pub(crate) fn files(&self) -> FileBound {
        self.files_within([
            // The database, its log, and the log's index. All else is sockets.
            Room { limit: "open files (ulimit -n)", there_is: system::descriptors(), spared: 512, each: 3 },
            // All else is the runtime's, and what closes files.
            Room {
                limit: "threads (ulimit -u, kernel.threads-max, kernel.pid_max, pids.max)",
                there_is: system::threads(),
                spared: 640,
                each: 1,
            },
            // The thread's stack, its stack for signals, a guard for each, and the log's index.
            Room { limit: "memory mappings (vm.max_map_count)", there_is: system::mappings(), spared: 4_096, each: 5 },
        ])
    }

    fn files_within<const N: usize>(&self, rooms: [Room; N]) -> FileBound {
        let possible =
            rooms.map(|room| ((room.there_is.saturating_sub(room.spared) / room.each).max(FEWEST), room.limit));
        let wanted = self.sqlite_connections.map(|wanted| (wanted.get().into(), "pools.sqlite_connections"));
        let (connections, by) = possible.into_iter().chain(wanted).min().unwrap_or((FEWEST, ""));
        let is_short = wanted.is_some_and(|(wanted, _)| wanted > connections);
        FileBound { connections: u32::try_from(connections).unwrap_or(u32::MAX), by, is_short }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_bounded_by_what_there_is_least_of() {
        let bound = |wanted, descriptors, threads, mappings| {
            let config = PoolsConfig { sqlite_connections: NonZeroU32::new(wanted), ..PoolsConfig::default() };
            let room = |limit, there_is, spared, each| Room { limit, there_is, spared, each };
            let files = room("files", descriptors, 512, 3);
            let rooms = [files, room("threads", threads, 640, 1), room("mappings", mappings, 4_096, 5)];
            let FileBound { connections, by, is_short } = config.files_within(rooms);
            (connections, by, is_short)
        };
        assert_eq!(bound(0, 20_000, 32_768, 65_530), (6_496, "files", false));
        assert_eq!(bound(0, 1_048_576, 32_768, 65_530), (12_286, "mappings", false));
        assert_eq!(bound(0, 1_048_576, 4_096, 65_530), (3_456, "threads", false));
        assert_eq!(bound(1_000, 20_000, 32_768, 65_530), (1_000, "pools.sqlite_connections", false));
        assert_eq!(bound(10_000, 20_000, 32_768, 65_530), (6_496, "files", true));
        assert_eq!(bound(0, 256, 32_768, 65_530), (16, "files", false));
        assert_eq!(bound(1, 256, 32_768, 65_530), (1, "pools.sqlite_connections", false));
    }
}
