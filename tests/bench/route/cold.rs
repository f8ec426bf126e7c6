//! The cold tenants beside the hot one: while something is timed, they are touched one after the other at a low rate.
//!
//! There are more of them than connections. So for each touch the data plane must close a connection of another tenant.

use std::cell::Cell;
use std::time::Duration;

use end_to_end::bed::{Bed, Tenant};

/// From one touch to the next: 5 touches in a second.
const EVERY: Duration = Duration::from_millis(200);

/// Tenants of a data plane that are touched, and what came of it.
pub(super) struct Cold<'a> {
    bed: &'a Bed,
    tenants: &'a [Tenant],
    next: Cell<usize>,
    served: Cell<u32>,
    refused: Cell<u32>,
}

impl<'a> Cold<'a> {
    /// Touches each tenant once, before anything is timed: then all connections of the budget are open.
    pub(super) async fn touched(bed: &'a Bed, tenants: &'a [Tenant]) -> Self {
        let cold = Self { bed, tenants, next: Cell::new(0), served: Cell::default(), refused: Cell::default() };
        for _ in tenants {
            cold.touch().await;
        }
        // Only touches while something is timed are reported.
        cold.served.set(0);
        cold.refused.set(0);
        cold
    }

    /// Does this work, and touches tenants at the fixed rate until it is done.
    pub(super) async fn beside<T>(&self, work: impl Future<Output = T>) -> T {
        let is_done = Cell::new(false);
        let working = async {
            let done = work.await;
            is_done.set(true);
            done
        };
        let touching = async {
            // Late ticks are made up for, so that the rate stays the same while touches take long.
            let mut ticks = tokio::time::interval(EVERY);
            loop {
                ticks.tick().await;
                if is_done.get() {
                    return;
                }
                self.touch().await;
            }
        };
        futures_util::future::join(working, touching).await.0
    }

    /// Touches while something was timed, and how many of them were refused.
    pub(super) fn counts(&self) -> (u32, u32) {
        (self.served.get() + self.refused.get(), self.refused.get())
    }

    /// One request for the tenant whose turn it is. The data plane may refuse it while all connections are busy. Any other
    /// failure ends the bench.
    async fn touch(&self) {
        let tenant = &self.tenants[self.next.replace(self.next.get() + 1) % self.tenants.len()];
        let answer = self.bed.get(0, tenant, "/api/pets").await;
        let is_refused = answer.status == 503 && answer.kind() == "server-busy";
        assert!(is_refused || answer.status == 200, "a cold tenant was answered {answer:?}");
        let count = if is_refused { &self.refused } else { &self.served };
        count.set(count.get() + 1);
    }
}
