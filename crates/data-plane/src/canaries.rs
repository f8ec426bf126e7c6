//! How the canaries of a rollout fare: how many requests they had answered, and how many of them with a 5xx.
//!
//! Only tenants that the control plane names are counted, and only while it does; nobody else's requests pay for it but by
//! one look at a flag.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use service::telemetry::RequestContext;
use tenancy::TenantId;
use tenancy::feed::{CanaryCount, MAX_CANARIES};

/// Counts that are to be told; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Canaries(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Whether anybody is counted.
    is_any: AtomicBool,
    counts: Mutex<BTreeMap<TenantId, Count>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    requests: u64,
    errors: u64,
}

impl Canaries {
    /// From here on these are counted, and nobody else is.
    pub(crate) fn watch(&self, named: &[TenantId]) {
        let named: BTreeSet<TenantId> = named.iter().take(MAX_CANARIES).copied().collect();
        let mut counts = self.counts();
        counts.retain(|tenant, _| named.contains(tenant));
        for tenant in &named {
            counts.entry(*tenant).or_default();
        }
        self.0.is_any.store(!named.is_empty(), Ordering::Relaxed);
    }

    /// Whether anybody is counted: what is counted is told soon.
    pub(crate) fn is_any(&self) -> bool {
        self.0.is_any.load(Ordering::Relaxed)
    }

    /// A request of the tenant was answered.
    pub(crate) fn note(&self, tenant: TenantId, is_error: bool) {
        if !self.is_any() {
            return;
        }
        if let Some(count) = self.counts().get_mut(&tenant) {
            count.requests += 1;
            count.errors += u64::from(is_error);
        }
    }

    /// What was counted and not told yet.
    pub(crate) fn take(&self) -> Vec<CanaryCount> {
        let mut counts = self.counts();
        let taken = counts.iter_mut().map(|(tenant, count)| (*tenant, std::mem::take(count)));
        let told = taken.map(|(tenant, Count { requests, errors })| CanaryCount { tenant, requests, errors });
        told.filter(|count| count.requests > 0).collect()
    }

    /// It could not be told.
    pub(crate) fn put_back(&self, untold: Vec<CanaryCount>) {
        let mut counts = self.counts();
        for CanaryCount { tenant, requests, errors } in untold {
            if let Some(count) = counts.get_mut(&tenant) {
                count.requests += requests;
                count.errors += errors;
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<TenantId, Count>> {
        // Each change of a count is whole before anything can panic.
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request whose answer is counted, if it is a canary's. One that panics, or takes too long, has an answer too; one whose
/// client left has none.
pub(crate) struct Counted {
    pub(crate) canaries: Canaries,
    /// Whose request it is, once that is known.
    pub(crate) tenant: Option<TenantId>,
}

impl Counted {
    pub(crate) fn answered(mut self, is_error: bool) {
        if let Some(tenant) = self.tenant.take() {
            self.canaries.note(tenant, is_error);
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let is_answered =
            || std::thread::panicking() || RequestContext::current(RequestContext::was_given_up) == Some(true);
        if let Some(tenant) = self.tenant.take().filter(|_| is_answered()) {
            self.canaries.note(tenant, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(number: u128) -> TenantId {
        uuid::Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + number).into()
    }

    #[test]
    fn only_named_tenants_are_counted_and_what_was_not_told_comes_back() {
        let canaries = Canaries::default();
        canaries.note(tenant(1), true);
        assert_eq!(canaries.take(), [], "nobody was named");
        canaries.watch(&[tenant(1), tenant(2)]);
        for (number, is_error) in [(1, false), (1, true), (2, false), (3, true)] {
            canaries.note(tenant(number), is_error);
        }
        let told = canaries.take();
        let count = |number, requests, errors| CanaryCount { tenant: tenant(number), requests, errors };
        assert_eq!(told, [count(1, 2, 1), count(2, 1, 0)]);
        assert_eq!(canaries.take(), []);
        canaries.note(tenant(1), false);
        canaries.put_back(told);
        canaries.watch(&[tenant(1)]);
        assert_eq!(canaries.take(), [count(1, 3, 1)], "of who is not named any more nothing is kept");
    }

    #[test]
    fn a_request_that_panics_is_an_error() {
        let canaries = Canaries::default();
        canaries.watch(&[tenant(1)]);
        let counted = || Counted { canaries: canaries.clone(), tenant: Some(tenant(1)) };
        let panicking = counted();
        assert!(
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _panicking = panicking;
                panic!("a panic of the test");
            }))
            .is_err()
        );
        drop(counted());
        counted().answered(false);
        assert_eq!(canaries.take(), [CanaryCount { tenant: tenant(1), requests: 2, errors: 1 }]);
    }
}
