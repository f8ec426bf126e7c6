//! The error budget: how many targets may fail before nothing new begins.

use super::settings::Budget;

impl Budget {
    /// How many of so many targets may fail; none for any number.
    pub(super) fn allows(self, targets: u64) -> Option<u64> {
        let by_share = self.percent.map(|percent| share(targets, percent));
        let by_count = self.targets.map(u64::from);
        match (by_count, by_share) {
            (Some(count), Some(share)) => Some(count.min(share)),
            (count, share) => count.or(share),
        }
    }
}

/// So many percent, rounded down.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count"
)]
fn share(targets: u64, percent: f64) -> u64 {
    (targets as f64 * percent / 100.0).floor() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smaller_of_a_count_and_a_share_is_allowed() {
        let budget = |targets, percent| Budget { targets, percent };
        assert_eq!(budget(Some(3), None).allows(10), Some(3));
        assert_eq!(budget(None, Some(1.0)).allows(200), Some(2));
        assert_eq!(budget(None, Some(1.0)).allows(99), Some(0), "of few not one");
        assert_eq!(budget(Some(3), Some(1.0)).allows(1_000), Some(3));
        assert_eq!(budget(Some(3), Some(1.0)).allows(200), Some(2));
        assert_eq!(budget(None, None).allows(10), None);
    }
}
