//! Which names are the busiest, in bounded memory: the space-saving sketch of Metwally, Agrawal and
//! El Abbadi ("Efficient computation of frequent and top-k elements in data streams", 2005).
//!
//! It decides whose metrics get a label of their own. However many names come by, it never holds
//! more than a fixed number, and never names more than its limit at once.

use std::{collections::HashMap, sync::Arc};

/// Counters kept for each name that may be named, so that a newcomer can prove itself unnamed.
const COUNTERS_PER_NAME: usize = 8;

/// Counts are halved after this many observations for each counter, so that yesterday's busiest
/// give way to today's.
const OBSERVATIONS_PER_COUNTER: u64 = 1_000;

/// The busiest names, at most `limit` of them.
#[derive(Debug)]
pub(super) struct Busiest {
    limit: usize,
    named: usize,
    observed: u64,
    counters: HashMap<Arc<str>, Counter>,
}

#[derive(Debug, Clone, Copy)]
struct Counter {
    count: u64,
    /// How much of the count may belong to names that held the counter before.
    error: u64,
    is_named: bool,
}

impl Busiest {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, named: 0, observed: 0, counters: HashMap::new() }
    }

    /// Counts one more of `name`; answers whether it is among the busiest now.
    pub(super) fn observe(&mut self, name: &Arc<str>) -> bool {
        self.age();
        let counter = match self.counters.get_mut(name) {
            Some(counter) => {
                counter.count += 1;
                *counter
            }
            None => self.admit(name),
        };
        counter.is_named || self.promote(name, counter)
    }

    /// Whether `name` is among the busiest.
    pub(super) fn is_named(&self, name: &str) -> bool {
        self.counters.get(name).is_some_and(|counter| counter.is_named)
    }

    /// A new name takes over the least counter, and its count as its own possible error.
    fn admit(&mut self, name: &Arc<str>) -> Counter {
        let mut error = 0;
        if self.counters.len() >= self.limit * COUNTERS_PER_NAME {
            let least = self.least(false).map(|(name, count)| (name.clone(), count));
            if let Some((least, count)) = least {
                self.counters.remove(&least);
                error = count;
            }
        }
        let counter = Counter { count: error + 1, error, is_named: false };
        self.counters.insert(name.clone(), counter);
        counter
    }

    /// A name gets a free place at once, another's only when it was seen twice as often for sure:
    /// each change of place leaves a time series behind, so that there must be few.
    fn promote(&mut self, name: &Arc<str>, counter: Counter) -> bool {
        if self.named >= self.limit {
            let Some((least, count)) = self.least(true) else { return false };
            if counter.count - counter.error <= 2 * count {
                return false;
            }
            let least = least.clone();
            self.set_named(&least, false);
            self.named -= 1;
        }
        self.set_named(name, true);
        self.named += 1;
        true
    }

    fn set_named(&mut self, name: &str, is_named: bool) {
        if let Some(counter) = self.counters.get_mut(name) {
            counter.is_named = is_named;
        }
    }

    /// The least counter among the named or the others.
    fn least(&self, named: bool) -> Option<(&Arc<str>, u64)> {
        self.counters
            .iter()
            .filter(|(_, counter)| counter.is_named == named)
            .min_by_key(|(_, counter)| counter.count)
            .map(|(name, counter)| (name, counter.count))
    }

    fn age(&mut self) {
        self.observed += 1;
        let window = self.limit as u64 * COUNTERS_PER_NAME as u64 * OBSERVATIONS_PER_COUNTER;
        if self.observed < window {
            return;
        }
        self.observed = 0;
        for counter in self.counters.values_mut() {
            counter.count /= 2;
            counter.error /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Arc<str> {
        Arc::from(format!("t{number}"))
    }

    #[test]
    fn any_number_of_names_takes_bounded_memory_and_labels() {
        let mut busiest = Busiest::new(4);
        for number in 0..10_000 {
            busiest.observe(&name(number));
            assert!(busiest.counters.len() <= 4 * COUNTERS_PER_NAME);
            let named = busiest.counters.values().filter(|counter| counter.is_named).count();
            assert_eq!(named, busiest.named);
            assert!(named <= 4);
        }
    }

    #[test]
    fn a_busy_latecomer_takes_a_quiet_ones_place_and_a_passer_by_does_not() {
        let mut busiest = Busiest::new(2);
        for number in 0..2 {
            assert!(busiest.observe(&name(number)));
        }
        assert!(!busiest.observe(&name(2)));
        assert!(!busiest.observe(&name(3)));
        for _ in 0..10 {
            busiest.observe(&name(2));
        }
        assert!(busiest.is_named("t2"));
        assert!(!busiest.is_named("t3"));
        assert_eq!(busiest.named, 2);
    }

    #[test]
    fn counts_age() {
        let mut busiest = Busiest::new(1);
        for _ in 0..20_000 {
            busiest.observe(&name(1));
        }
        assert!(busiest.counters["t1"].count < 16_000);
    }
}
