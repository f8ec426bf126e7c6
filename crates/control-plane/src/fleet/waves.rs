//! Waves: a few canaries first, then ever more of the fleet.

/// How many targets each wave has, of so many in all: the canaries, and then as many as bring the share of those that are
/// done to the next of `steps`, in percent. The last wave has the rest. None is empty.
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a share of a count"
)]
pub(super) fn sizes(targets: u64, canaries: u64, steps: &[f64]) -> Vec<u64> {
    let canaries = canaries.min(targets);
    let mut sizes = Vec::from_iter((canaries > 0).then_some(canaries));
    let mut so_far = canaries;
    for step in steps.iter().copied().chain([100.0]) {
        let until = ((targets as f64 * step / 100.0).ceil() as u64).clamp(so_far, targets);
        if until > so_far {
            sizes.push(until - so_far);
            so_far = until;
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waves_grow_and_none_is_empty() {
        assert_eq!(sizes(1_000, 1, &[1.0, 10.0, 50.0]), [1, 9, 90, 400, 500]);
        assert_eq!(sizes(3, 1, &[1.0, 10.0, 50.0]), [1, 1, 1]);
        assert_eq!(sizes(1, 1, &[1.0]), [1]);
        assert_eq!(sizes(0, 1, &[1.0]), [] as [u64; 0]);
        assert_eq!(sizes(10, 0, &[]), [10]);
        assert_eq!(sizes(2, 5, &[]), [2]);
    }

    proptest! {
        #[test]
        fn each_target_is_in_one_wave(targets in 0_u64..200_000, canaries in 0_u64..100, steps in proptest::collection::vec(0.0..100.0_f64, 0..8)) {
            let sizes = sizes(targets, canaries, &steps);
            prop_assert_eq!(sizes.iter().sum::<u64>(), targets);
            prop_assert!(sizes.iter().all(|size| *size > 0));
        }
    }
}
