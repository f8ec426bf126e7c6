//! The time until which this process may work on the targets that it took: by its own monotonic clock, and never later than
//! what the registry says.

use std::collections::BTreeSet;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

/// All leases of this process on targets: one heartbeat renews them together.
#[derive(Clone)]
pub(super) struct Held(Arc<Mutex<Until>>);

struct Until {
    /// The tenants whose targets are at work, or ended and not written down.
    at_work: BTreeSet<Uuid>,
    moment: Instant,
    /// Raised whenever the time was over before it was renewed: what was taken before is lost then, whatever comes later.
    term: u64,
}

/// The time in which something was taken.
#[derive(Clone, Copy)]
pub(super) struct Term {
    number: u64,
    /// Until when it is ours without a heartbeat.
    moment: Instant,
}

/// A target at work: its lease is renewed until this is dropped. What is lost is not renewed, so that somebody takes it.
pub(super) struct Kept {
    held: Held,
    tenant: Uuid,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.held.until().at_work.remove(&self.tenant);
    }
}

impl Held {
    pub(super) fn new(length: Duration) -> Self {
        let moment = Instant::now() + length;
        Self(Arc::new(Mutex::new(Until { at_work: BTreeSet::new(), moment, term: 0 })))
    }

    /// From here on the lease on the tenant's target is renewed. A tenant is in one open rollout at a time.
    pub(super) fn keep(&self, tenant: Uuid) -> Kept {
        self.until().at_work.insert(tenant);
        Kept { held: self.clone(), tenant }
    }

    /// The tenants whose targets' leases are to be renewed.
    pub(super) fn at_work(&self) -> Vec<Uuid> {
        self.until().at_work.iter().copied().collect()
    }

    fn until(&self) -> MutexGuard<'_, Until> {
        // Each change is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The term of what is taken now, for so long.
    pub(super) fn take(&self, length: Duration) -> Term {
        Term { number: self.until().term, moment: Instant::now() + length }
    }

    /// All of them were renewed by a heartbeat that began then.
    pub(super) fn renewed(&self, begun: Instant, length: Duration) {
        self.until().moment = begun + length;
    }

    /// Before a heartbeat: whether what was taken may be another's by now is decided here, for a process that was frozen may
    /// send its heartbeat before anything else looks at the time.
    pub(super) fn look(&self) {
        let mut until = self.until();
        if Instant::now() >= until.moment {
            until.term += 1;
        }
    }

    /// When a piece of work ends to be ours; none if it has.
    fn deadline(&self, term: Term) -> Option<Instant> {
        let until = self.until();
        let deadline = (until.term == term.number).then(|| until.moment.max(term.moment));
        deadline.filter(|deadline| *deadline > Instant::now())
    }

    /// Does work while it is ours; none if it was lost. Time is looked at first.
    pub(super) async fn hold<T>(&self, term: Term, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let mut alarm = pin!(sleep_until(term.moment));
        poll_fn(|context| {
            loop {
                let Some(deadline) = self.deadline(term) else { return Poll::Ready(None) };
                if alarm.as_mut().poll(context).is_pending() {
                    break;
                }
                // It was renewed meanwhile.
                alarm.as_mut().reset(deadline);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }
}
