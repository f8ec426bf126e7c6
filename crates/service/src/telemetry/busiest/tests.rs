//! The sketch against exact counts.

use std::{
    collections::{HashMap, HashSet},
    sync::Barrier,
    thread,
};

use foldhash::quality::FixedState;
use proptest::prelude::*;

use super::*;

/// Always the same rows, so that a test that fails fails again.
fn busiest(limit: usize) -> Busiest<FixedState> {
    Busiest::with_hasher(limit, FixedState::default())
}

fn name(number: usize) -> String {
    format!("t{number}")
}

/// What a counter says.
struct Counter {
    count: u32,
    error: u32,
    is_named: bool,
}

impl Row {
    fn counter(&self, way: usize) -> Counter {
        Counter { count: self.counts[way] & !NAMED, error: self.errors[way], is_named: self.is_named(way) }
    }
}

impl<S: BuildHasher> Busiest<S> {
    fn counters(&self) -> Vec<Counter> {
        let of_row = |index| (0..WAYS).map(|way| self.row(index).counter(way)).collect::<Vec<_>>();
        (0..self.rows.len()).flat_map(of_row).collect()
    }

    fn named(&self) -> usize {
        self.counters().iter().filter(|counter| counter.is_named).count()
    }

    fn counter(&self, name: &str) -> Option<Counter> {
        let hash = self.hasher.hash_one(name);
        let row = self.row_of(hash);
        row.find(hash).map(|way| row.counter(way))
    }
}

/// Numbers from 0, each rank less often than the one before as Zipf's law has it, always the same.
fn zipf(names: usize) -> impl Iterator<Item = usize> {
    #[expect(clippy::cast_precision_loss)]
    let sums: Vec<f64> = (1..=names)
        .scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        })
        .collect();
    let mut state = 7_u64;
    std::iter::repeat_with(move || {
        // Knuth's linear congruential generator; the high bits are the random ones.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        #[expect(clippy::cast_precision_loss)]
        let drawn = (state >> 11) as f64 / (1_u64 << 53) as f64 * sums[names - 1];
        sums.partition_point(|sum| *sum < drawn)
    })
}

#[test]
fn any_number_of_names_takes_bounded_labels() {
    let busiest = busiest(4);
    for number in 0..10_000 {
        busiest.observe(&name(number));
        assert_eq!(busiest.named(), 4.min(number + 1));
        assert_eq!(busiest.labels.load(Ordering::Relaxed), busiest.named());
    }
}

#[test]
fn memory_is_taken_at_once() {
    assert_eq!(busiest(100).rows.len() * size_of::<Line>(), 20 << 10);
    assert_eq!(busiest(10_000).rows.len() * size_of::<Line>(), 5 << 19);
}

#[test]
fn a_busy_latecomer_takes_a_quiet_ones_place_and_a_passer_by_does_not() {
    let busiest = busiest(2);
    for number in 0..2 {
        assert!(busiest.observe(&name(number)));
    }
    assert!(!busiest.observe(&name(2)));
    assert!(!busiest.observe(&name(3)));
    for _ in 0..busiest.rows.len() * CONTENDS_EVERY as usize {
        busiest.observe(&name(2));
    }
    assert!(busiest.is_named("t2"));
    assert!(!busiest.is_named("t3"));
    assert_eq!(busiest.named(), 2);
}

#[test]
fn one_that_is_not_twice_as_busy_takes_no_place() {
    let busiest = busiest(1);
    for _ in 0..100 {
        assert!(busiest.observe("t1"));
    }
    for _ in 0..200 {
        assert!(!busiest.observe("t2"));
    }
    // Each time that it contends it looks into one row.
    let observations = busiest.rows.len() * CONTENDS_EVERY as usize;
    let changes = (0..observations).filter(|_| busiest.observe("t2")).count();
    assert!(changes > 0);
    assert!(!busiest.is_named("t1"));
}

#[test]
fn counts_age() {
    let busiest = busiest(1);
    for _ in 0..20_000 {
        busiest.observe("t1");
    }
    assert!(busiest.counter("t1").unwrap().count < 16_000);
}

#[test]
fn one_that_fell_silent_gives_its_place_to_one_half_as_busy() {
    let busiest = busiest(1);
    for _ in 0..10_000 {
        busiest.observe("yesterday");
    }
    for _ in 0..10_000 {
        busiest.observe("today");
    }
    assert!(busiest.is_named("today"));
}

#[test]
fn the_busier_half_of_100_000_names_is_named() {
    const LIMIT: usize = 100;
    let busiest = busiest(LIMIT);
    let names: Vec<String> = (0..100_000).map(name).collect();
    let mut ever = HashSet::new();
    // Two windows of age.
    for number in zipf(names.len()).take(2 * LIMIT * 8_000) {
        if busiest.observe(&names[number]) {
            ever.insert(number);
        }
    }
    let missing: Vec<usize> =
        (0..names.len()).take(LIMIT / 2).filter(|rank| !busiest.is_named(&names[*rank])).collect();
    assert_eq!(missing, [0; 0]);
    assert_eq!(busiest.named(), LIMIT);
    assert!(ever.len() < 3 * LIMIT, "{} names had a label", ever.len());
}

#[test]
fn a_label_whose_taker_lost_its_counter_meanwhile_is_free_again() {
    let busiest = busiest(1);
    assert!(busiest.observe("t1"));
    assert!(busiest.row_of(busiest.hasher.hash_one("t1")).unname(3));
    assert!(!busiest.observe("t2"), "the label is on its way to another");
    assert!(!busiest.name(busiest.hasher.hash_one("gone")));
    assert!(busiest.observe("t2"));
    // And one whose taker got another meanwhile.
    busiest.labels.store(2, Ordering::Relaxed);
    assert!(busiest.name(busiest.hasher.hash_one("t2")));
    assert_eq!(busiest.labels.load(Ordering::Relaxed), 1);
}

#[test]
fn cores_that_count_at_once_lose_nothing_and_name_no_more() {
    const CORES: usize = 4;
    const EACH: usize = 20_000;
    let busiest = busiest(20);
    let start = Barrier::new(CORES);
    thread::scope(|scope| {
        for core in 0..CORES {
            let (busiest, start) = (&busiest, &start);
            scope.spawn(move || {
                start.wait();
                for number in zipf(1_000).skip(core * EACH).take(EACH) {
                    busiest.observe(&name(number));
                    assert!(busiest.labels.load(Ordering::Relaxed) <= 20);
                }
            });
        }
    });
    let sum: usize = busiest.counters().iter().map(|counter| counter.count as usize).sum();
    assert_eq!(sum, CORES * EACH);
    assert_eq!(busiest.named(), busiest.labels.load(Ordering::Relaxed));
    assert_eq!(busiest.named(), 20);
}

proptest! {
    // No more is promised: what was evicted may come back with less than it had, as the named are never evicted.
    #[test]
    fn a_name_was_seen_at_least_as_often_as_its_count_says_for_sure(
        stream in prop::collection::vec(0_usize..500, 0..2_000),
        limit in 1_usize..8,
    ) {
        let busiest = busiest(limit);
        let mut exact: HashMap<usize, u32> = HashMap::new();
        for number in &stream {
            let is_named = busiest.observe(&name(*number));
            prop_assert_eq!(is_named, busiest.is_named(&name(*number)));
            *exact.entry(*number).or_default() += 1;
        }
        for (number, exact) in exact {
            if let Some(Counter { count, error, .. }) = busiest.counter(&name(number)) {
                prop_assert!(count - error <= exact);
            }
        }
        prop_assert!(busiest.named() <= limit);
        let sum: usize = busiest.counters().iter().map(|counter| counter.count as usize).sum();
        prop_assert_eq!(sum, stream.len());
    }
}
