//! Servers that failed to answer this process. Their operations are taken one at a time until one of them is done: the slots
//! are for work that can be done; and tenants are placed on others that have room. A hint, lost with the process; no row depends on it.

use std::collections::HashSet;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use opentelemetry::metrics::Gauge;
use uuid::Uuid;

/// The servers; no more than are registered.
#[derive(Default)]
pub(crate) struct Breakers(Mutex<HashSet<Uuid>>);

impl Breakers {
    /// The server failed to answer.
    pub(super) fn open(&self, server: Uuid) {
        let mut open = self.servers();
        if open.insert(server) {
            tracing::warn!(%server, "a server does not answer: its operations are taken one at a time until one is done");
            count(open.len());
        }
    }

    /// An operation on the server is done, or it answers when it is asked.
    pub(crate) fn close(&self, server: Uuid) {
        let mut open = self.servers();
        if open.remove(&server) {
            tracing::info!(%server, "a server answers again");
            count(open.len());
        }
    }

    /// Those that failed to answer.
    pub(super) fn all(&self) -> HashSet<Uuid> {
        self.servers().clone()
    }

    fn servers(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        // Each change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(servers: usize) {
    static SILENT: LazyLock<Gauge<u64>> = LazyLock::new(|| {
        opentelemetry::global::meter("control-plane")
            .u64_gauge("servers_silent")
            .with_description("Servers that failed to answer, whose operations are taken one at a time.")
            .build()
    });
    SILENT.record(servers as u64, &[]);
}
