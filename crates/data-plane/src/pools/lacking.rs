//! Keys that the control plane's ring has and this node's lacks: told as soon as the control plane is heard, and not when the
//! first tenant whose URL is sealed with one is asked for.
//!
//! A node that lacks one stays ready: it serves all other tenants.

use std::sync::{Mutex, PoisonError};

use opentelemetry::metrics::{Gauge, Meter};
use tenancy::seal::KeyRing;

/// What was told last, so that it is told once.
#[derive(Debug)]
pub(super) struct Lacking {
    gauge: Gauge<u64>,
    told: Mutex<Vec<String>>,
}

impl Lacking {
    pub(super) fn new(meter: &Meter) -> Self {
        let gauge = meter.u64_gauge("data_plane_seal_keys_missing");
        let gauge = gauge.with_description("Keys of the control plane's ring that this node's lacks.").build();
        gauge.record(0, &[]);
        Self { gauge, told: Mutex::default() }
    }

    /// Compares the rings, by the ids of their keys.
    pub(super) fn compare(&self, ring: &KeyRing, theirs: &[String]) {
        let missing: Vec<_> = theirs.iter().filter(|id| ring.ids().all(|own| own != *id)).cloned().collect();
        self.gauge.record(missing.len() as u64, &[]);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told == missing {
            return;
        }
        if missing.is_empty() {
            tracing::info!("the ring of this node has all keys of the control plane's again");
        } else {
            tracing::error!(keys = ?missing,
                "[seal.tenants] of this node lacks keys that the control plane has: tenants whose URLs are sealed with one are \
                 answered 503 here; add them, and start the node again");
        }
        *told = missing;
    }
}
