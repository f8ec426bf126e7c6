//! How a connection comes back from a use: to the statement that waits longest, to another tenant, or to the idle ones.
//!
//! An idle connection to a file rests: it frees memory that it can do without. It stays as old as it was, so that resting
//! keeps no connection from being closed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::super::checkout::Checkout;
use super::super::metrics::Closed;
use super::{Live, TenantPool};

/// How long one connection serves its tenant's queue in a row while other tenants have none, or fewer: long enough that opening it was
/// worth it.
const IN_A_ROW: Duration = Duration::from_millis(50);
/// How long giving back memory may take.
const RESTED_WITHIN: Duration = Duration::from_secs(1);

impl TenantPool {
    /// Takes back a connection that is fit for use: for the statement that waits longest, else it is idle.
    pub(in super::super) fn give_back(self: &Arc<Self>, mut live: Live) {
        let now = Instant::now();
        (live.used, live.is_rested) = (now, false);
        self.put_back(live, now);
    }

    fn put_back(self: &Arc<Self>, live: Live, now: Instant) {
        if live.expires <= now || self.is_unused() {
            return self.part_with(live, Closed::Expired, now);
        }
        let mut state = self.state();
        // Under the lock: what sees the connection idle afterwards, or not, has set these before.
        if self.server.is_over_share() {
            drop(state);
            return self.part_with(live, Closed::Shrunk, now);
        }
        if state.renewed.is_some_and(|renewed| live.begun <= renewed) {
            drop(state);
            return self.part_with(live, Closed::Retired, now);
        }
        let others_starve = self.server.is_starving();
        let is_row_over = now.saturating_duration_since(live.in_row_since) >= IN_A_ROW;
        if is_row_over && !state.waiting.is_empty() && self.server.is_wanted_elsewhere() {
            drop(state);
            return self.server.pass_on(self, live, now);
        }
        let mut checkout = Checkout::new(Arc::clone(self), live);
        while let Some(waiter) = state.waiting.pop_front() {
            match waiter.send(Ok(checkout)) {
                // It waits no longer.
                Err(Ok(back)) => checkout = back,
                Ok(()) | Err(Err(_)) => return,
            }
        }
        if let Some(live) = checkout.into_live() {
            let place = state.idle.partition_point(|other| other.used <= live.used);
            state.idle.insert(place, live);
        }
        drop(state);
        if self.is_unused() {
            // Retired in the moment between.
            self.close_if_unused();
        } else if others_starve {
            self.server.dispatch(now);
        }
    }

    /// Closes one that serves no more. Should a statement wait for it, it waits for another one.
    fn part_with(self: &Arc<Self>, live: Live, why: Closed, now: Instant) {
        self.server.discard(self, live, why);
        let _ = self.server.ask(self, now);
    }

    /// Has connections that were not used since this moment free memory that they can do without, until told to stop. Answers whether
    /// all did so in time.
    pub(in super::super) async fn rest(self: &Arc<Self>, unused_since: Instant, stopping: &CancellationToken) -> bool {
        while !stopping.is_cancelled()
            && let Some(mut live) = self.take_unrested(unused_since)
        {
            let Ok(rested) = tokio::time::timeout(RESTED_WITHIN, live.connection.rest()).await else {
                self.server.discard(self, live, Closed::Broken);
                return false;
            };
            if rested.is_err() {
                self.server.discard(self, live, Closed::Spent);
                continue;
            }
            let now = Instant::now();
            (live.is_rested, live.in_row_since) = (true, now);
            self.put_back(live, now);
        }
        true
    }

    fn take_unrested(&self, unused_since: Instant) -> Option<Live> {
        let mut state = self.state();
        let at = state.idle.iter().position(|live| !live.is_rested && live.used <= unused_since)?;
        Some(state.idle.remove(at))
    }

    /// As [`Self::give_back`], without yielding to others.
    pub(in super::super) fn keep(self: &Arc<Self>, mut live: Live, now: Instant) {
        live.in_row_since = now;
        self.give_back(live);
    }
}
