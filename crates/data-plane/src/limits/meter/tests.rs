//! The arithmetic of one meter, against governor's and against what a plan promises.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::FakeRelativeClock;
use proptest::prelude::*;

use super::*;

fn quota(requests: u32, burst: u32, window: u32) -> Quota {
    let number = |it: u32| NonZeroU32::new(it).unwrap();
    Quota::new(number(requests), number(burst), number(window))
}

/// So many requests that are let pass at once.
fn pass(meter: &mut Meter, now: u64, standing: Standing, most: u32) -> u32 {
    let mut passed = 0;
    while passed < most && meter.look(now, standing) == Look::May {
        meter.take(now, standing);
        passed += 1;
    }
    passed
}

/// Requests, burst and window of a plan.
fn plans() -> impl Strategy<Value = Quota> {
    (1u32..5_000, 1u32..5_000, 1u32..4_000).prop_map(|(requests, burst, window)| quota(requests, burst, window))
}

proptest! {
    #[test]
    fn a_meter_of_one_node_says_what_governor_says(
        quota in plans(),
        steps in prop::collection::vec((0u64..3_000_000_000, 1u32..40), 1..200),
    ) {
        let clock = FakeRelativeClock::default();
        let period = governor::Quota::with_period(Duration::from_nanos(quota.interval)).unwrap();
        let theirs = RateLimiter::direct_with_clock(
            period.allow_burst(NonZeroU32::new(quota.burst).unwrap()), clock.clone());
        let mut ours = Meter::new(quota, 0);
        let mut now = 0;
        for (passed, requests) in steps {
            now += passed;
            clock.advance(Duration::from_nanos(passed));
            for _ in 0..requests {
                let may = ours.look(now, Standing::Share(1)) == Look::May;
                prop_assert_eq!(may, theirs.check().is_ok());
                prop_assert_eq!(may, ours.left(now, Standing::Share(1)).until_next == 0);
                if may {
                    ours.take(now, Standing::Share(1));
                }
            }
        }
    }

    #[test]
    fn shares_of_all_nodes_together_are_the_plan(
        quota in plans(),
        nodes in 1u32..6,
        steps in prop::collection::vec((0u64..2_000_000_000, 0u32..5, 1u32..60), 1..200),
    ) {
        let mut meters = vec![Meter::new(quota, 0); nodes as usize];
        let (mut now, mut passed) = (0, 0);
        for (step, node, requests) in steps {
            now += step;
            passed += pass(&mut meters[(node % nodes) as usize], now, Standing::Share(nodes), requests);
            // A burst of less than one request a node is one all the same.
            let burst = u64::from(quota.burst.max(nodes));
            let may = burst + now / quota.interval;
            prop_assert!(u64::from(passed) <= may, "{} passed of {}", passed, may);
        }
    }

    #[test]
    fn a_changed_plan_is_no_refill(
        before in plans(),
        after in plans(),
        used in 0u32..5_000,
        again in any::<bool>(),
    ) {
        let (now, alone) = (7_000_000_000, Standing::Share(1));
        let mut meter = Meter::new(before, 0);
        let used = pass(&mut meter, now, alone, used);
        meter.hold_to(now, after);
        if again {
            // There and back is no refill either.
            meter.hold_to(now, after);
        }
        let left = pass(&mut meter, now, alone, u32::MAX);
        prop_assert!(left <= after.burst.saturating_sub(used), "{} used of {:?}, {} left of {:?}", used, before, left, after);
        // Nor does it take away more than the rounding of a permit.
        prop_assert!(left + 1 >= after.burst.saturating_sub(used));
        prop_assert!(left == after.burst.saturating_sub(used) || used > 0);
    }
}

#[test]
fn a_batch_is_what_is_used_in_a_fifth_of_a_second_and_is_asked_for_early() {
    let quota = quota(1_000_000, 100_000, 1);
    let mut meter = Meter::new(quota, 0);
    let mut asks = 0;
    let mut largest = 0;
    // A thousand requests a second, for ten seconds.
    for request in 0..10_000u64 {
        let now = request * MILLISECOND;
        let mut must_ask = meter.look(now, Standing::Leased) == Look::Ask;
        if !must_ask {
            must_ask = meter.take(now, Standing::Leased);
        }
        if must_ask {
            let ask = meter.ask(now, 3);
            (asks, largest) = (asks + 1, ask.want.max(largest));
            let granted = ask.want.saturating_sub(ask.held);
            meter.hear(now, &ask, &Answer { granted, debt: 0, memory: 1 });
        }
    }
    assert!((100..=400).contains(&largest), "{largest}");
    assert!(asks < 100, "{asks} questions for 10000 requests");
}

#[test]
fn a_batch_that_is_not_used_is_gone_when_its_giver_counts_on_it() {
    let mut meter = Meter::new(quota(100, 100, 1), 0);
    let ask = meter.ask(0, 1);
    meter.hear(0, &ask, &Answer { granted: 1, debt: 10 * MILLISECOND, memory: 1 });
    assert_eq!(meter.look(LEASE - 1, Standing::Leased), Look::May);
    assert_eq!(meter.look(LEASE, Standing::Leased), Look::Ask);
}

#[test]
fn who_was_refused_waits_as_long_as_it_was_told_and_a_second_at_most() {
    let hour = quota(100, 100, 3_600);
    let mut meter = Meter::new(hour, 0);
    let ask = meter.ask(0, 1);
    meter.hear(0, &ask, &Answer { granted: 0, debt: hour.tolerance(), memory: 1 });
    assert_eq!(meter.look(NEWS - 1, Standing::Leased), Look::Wait);
    assert_eq!(meter.left(0, Standing::Leased).until_next, hour.interval, "the caller is told the truth");
    assert_eq!(meter.look(NEWS, Standing::Leased), Look::Ask);
}

#[test]
fn the_last_permit_of_a_slow_plan_is_not_kept_waiting() {
    for (quota, look) in [(quota(60, 60, 3_600), Look::Ask), (quota(1_000, 1_000, 1), Look::Wait)] {
        let mut meter = Meter::new(quota, 0);
        let ask = Ask { want: 3, ..meter.ask(0, 3) };
        meter.hear(0, &ask, &Answer { granted: 1, debt: quota.tolerance() - 2 * quota.interval, memory: 1 });
        meter.take(0, Standing::Leased);
        assert_eq!(meter.look(0, Standing::Leased), look);
    }
}

#[test]
fn what_a_node_used_on_its_own_is_told_once_and_in_full() {
    let hour = quota(90, 90, 3_600);
    let (mut meter, nodes) = (Meter::new(hour, 0), 3);
    assert!(meter.tell(0, nodes, 1).is_none(), "nothing is owed");
    assert_eq!(pass(&mut meter, 0, Standing::Share(nodes), u32::MAX), 30);
    let ask = meter.tell(0, nodes, 1).unwrap();
    assert_eq!((ask.owed, ask.own), (0, 30 * hour.interval));
    // One more passes while the answer is on its way, and is told the next time.
    let later = 3 * hour.interval;
    assert_eq!(pass(&mut meter, later, Standing::Share(nodes), u32::MAX), 1);
    meter.hear(later, &ask, &Answer { granted: 0, debt: 27 * hour.interval, memory: 1 });
    assert_eq!(meter.tell(later, nodes, 1).unwrap().own, hour.interval);
    assert_eq!(meter.tell(later, nodes, 2).unwrap().owed, 87 * hour.interval, "another memory is told all of it");
    // That the others have not told of theirs yet is no refill of its share.
    assert_eq!(pass(&mut meter, later, Standing::Share(nodes), u32::MAX), 0);
}
