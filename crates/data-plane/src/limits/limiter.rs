//! One tenant's or client's meter as all requests share it: under a lock, with its name where all nodes share it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tenancy::TenantId;

use super::meter::Meter;

/// Whose a meter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) tenant: TenantId,
    /// A hash of who calls; none for the tenant as a whole.
    pub(super) client: Option<u64>,
}

/// A meter, and its name where all nodes share it.
pub(crate) struct Limiter {
    key: Key,
    pub(super) name: Box<str>,
    /// There was no room for it any more: another goes on with what it owes.
    is_forgotten: AtomicBool,
    meter: Mutex<Meter>,
    /// One question at a time: who comes meanwhile has the answer when it is there.
    pub(super) asking: tokio::sync::Mutex<()>,
}

impl Limiter {
    /// `client` is what the key has a hash of.
    pub(super) fn new(key: Key, client: Option<&str>, meter: Meter) -> Self {
        let tenant = key.tenant;
        let name = match client {
            Some(client) => format!("freehold:limits:{tenant}:{client}"),
            None => format!("freehold:limits:{tenant}"),
        };
        let (is_forgotten, meter) = (AtomicBool::new(false), Mutex::new(meter));
        Self { key, name: name.into(), is_forgotten, meter, asking: tokio::sync::Mutex::default() }
    }

    pub(super) fn meter(&self) -> MutexGuard<'_, Meter> {
        // Each change of a meter is whole before anything can panic.
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody takes of it any more, and says what it owes.
    pub(super) fn forget(&self) -> u64 {
        self.is_forgotten.store(true, Ordering::SeqCst);
        self.meter().full_at()
    }

    /// Whether it is the one that counts for this key.
    pub(super) fn is_of(&self, key: &Key) -> bool {
        self.key == *key && !self.is_forgotten.load(Ordering::SeqCst)
    }
}
