//! `[pools]`: what is kept open, and how long a request waits for it.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use service::config::Invalid;

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
    /// Connections to SQLite files that this node may have in all; by default as many as the limit of descriptors allows.
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

/// Descriptors that one connection to a SQLite file takes: the database, its log, and the log's index.
const DESCRIPTORS: u64 = 3;
/// Descriptors that are left to sockets and logs.
const SPARED: u64 = 512;

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

    /// Connections to SQLite files at most, within the descriptors that the process may have.
    pub(crate) fn sqlite_connections(&self) -> u32 {
        let descriptors = service::descriptors::limit();
        let possible = u32::try_from(descriptors.saturating_sub(SPARED) / DESCRIPTORS).unwrap_or(u32::MAX).max(16);
        self.sqlite_connections.map_or(possible, |wanted| wanted.get().min(possible))
    }
}
