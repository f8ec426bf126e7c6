//! What a plan allows, as times: how long one permit takes to come back, and how much may be owed at once.
//!
//! All times in this room are whole nanoseconds of the node's own clock.

use std::num::NonZeroU32;

use tenancy::Plan;

const SECOND: u64 = 1_000_000_000;
/// No debt is longer: 146 years.
const LONGEST: u64 = u64::MAX / 4;

/// So many requests in each window, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quota {
    /// Requests in each window.
    pub(super) requests: u32,
    /// Requests that may come at once.
    pub(super) burst: u32,
    /// Length of the window, in seconds.
    pub(super) window: u32,
    /// Until one permit comes back.
    pub(super) interval: u64,
}

impl Quota {
    /// The interval is rounded up, so that never more is allowed. Up to a million requests a second that is 0.1 percent.
    pub(super) fn new(requests: NonZeroU32, burst: NonZeroU32, window_seconds: NonZeroU32) -> Self {
        let (requests, burst, window) = (requests.get(), burst.get(), window_seconds.get());
        let interval = (u64::from(window) * SECOND).div_ceil(u64::from(requests));
        Self { requests, burst, window, interval }
    }

    /// What the tenant may as a whole, if that is limited.
    pub(super) fn of_tenant(plan: &Plan) -> Option<Self> {
        Some(Self::new(plan.requests?, plan.effective_burst()?, plan.window_seconds))
    }

    /// What each client of the tenant may, if that is limited.
    pub(super) fn of_client(plan: &Plan) -> Option<Self> {
        Some(Self::new(plan.client_requests?, plan.effective_client_burst()?, plan.window_seconds))
    }

    /// The debt at which nothing is left.
    pub(super) fn tolerance(&self) -> u64 {
        self.interval.saturating_mul(u64::from(self.burst)).min(LONGEST)
    }
}
