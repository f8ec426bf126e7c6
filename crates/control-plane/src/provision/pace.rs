//! How patient the work is: leases, retries, and the looks for what no wake-up announced.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Attempts at a step before it is given up, or put off.
pub(super) const ATTEMPTS: u32 = 5;
/// Longest that work which cannot be given up is put off.
const LONGEST: Duration = Duration::from_mins(1);

/// The times that a runner keeps.
#[derive(Clone)]
pub(super) struct Pace {
    /// How long a lease lasts without a heartbeat: a dead holder's work is taken over after that.
    pub(super) lease: Duration,
    /// How long one look for work is from the next when nothing wakes the runner.
    pub(super) scan: Duration,
    /// How long one attempt may take. A server's own limits end its statements, but not the wait for one that went silent.
    pub(super) attempt: Duration,
    /// The wait before the second attempt; each further one is three times as long.
    pub(super) first_retry: Duration,
    /// How long work is put off at first that failed in all of its attempts and cannot be given up.
    pub(super) put_off: Duration,
    /// How long the first look is from the second at what waits for others; up to a hundred times as long for later ones.
    pub(super) wait: Duration,
    /// Operations that one runner works on at once. Each may hold two of the registry's connections.
    pub(super) at_once: usize,
    /// Where a test breaks the work.
    #[cfg(test)]
    pub(super) faults: super::faults::Faults,
}

/// Operations that one control plane works on at once.
pub(crate) const AT_ONCE: usize = 8;

impl Default for Pace {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(8),
            scan: Duration::from_secs(1),
            attempt: Duration::from_mins(2),
            first_retry: Duration::from_millis(100),
            put_off: Duration::from_secs(1),
            wait: Duration::from_millis(50),
            at_once: AT_ONCE,
            #[cfg(test)]
            faults: super::faults::Faults::default(),
        }
    }
}

impl Pace {
    /// One lost heartbeat and a slow one are borne.
    pub(super) fn heartbeat(&self) -> Duration {
        self.lease / 3
    }

    /// The waits between a step's attempts. With jitter, so that what failed together does not come back together.
    pub(super) fn retries(&self) -> ExponentialBackoff {
        ExponentialBuilder::new()
            .with_min_delay(self.first_retry)
            .with_max_delay(self.first_retry * 20)
            .with_factor(3.0)
            .with_max_times(ATTEMPTS as usize - 1)
            .with_jitter()
            .build()
    }

    /// How long to let go of what was looked at this often in vain: data planes mostly follow at once, or not for long.
    pub(super) fn wait(&self, looks: i32) -> Duration {
        self.wait.saturating_mul(1 + looks.unsigned_abs().pow(2) / 4).min(self.wait.saturating_mul(100))
    }

    /// How long to put off what failed this many times: twice as long after every round of attempts.
    pub(super) fn put_off(&self, attempts: i32) -> Duration {
        let rounds = (attempts.unsigned_abs() / ATTEMPTS).min(16);
        let doubled = 1u32.checked_shl(rounds.saturating_sub(1)).unwrap_or(u32::MAX);
        self.put_off.saturating_mul(doubled).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_put_off_twice_as_long_each_round_up_to_a_bound() {
        let pace = Pace::default();
        let seconds: Vec<u64> =
            [1, 5, 10, 15, 20, 25, 30, 35, 40, i32::MAX].map(|it| pace.put_off(it).as_secs()).into();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
    }

    #[test]
    fn the_work_of_a_process_that_died_is_taken_over_within_ten_seconds() {
        let lease = Duration::from_secs(crate::config::TenantsConfig::default().lease_seconds);
        let pace = Pace { lease, ..Pace::default() };
        assert!(pace.lease + pace.scan < Duration::from_secs(10), "it died after a heartbeat, and before a look");
        // A heartbeat may be lost, and the next one be slow.
        assert!(2 * pace.heartbeat() + Duration::from_secs(2) < pace.lease);
        assert_eq!(lease, Pace::default().lease);
    }

    #[test]
    fn a_step_is_retried_a_bounded_number_of_times() {
        assert_eq!(Pace::default().retries().count(), ATTEMPTS as usize - 1);
    }
}
