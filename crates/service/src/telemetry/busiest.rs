//! Which names are the busiest, in constant time, in fixed memory, and with no lock that all share.
//!
//! It decides whose metrics get a label of their own. It is the space-saving sketch of Metwally, Agrawal and El Abbadi
//! ("Efficient computation of frequent and top-k elements in data streams", 2005), cut into rows as a set-associative
//! cache is (Adas, Einziger and Friedman, "Limited associativity makes concurrent software caches a breeze", 2022): a
//! name's hash picks its row, and a row is a small sketch behind a lock of its own.
//!
//! An observation locks one row, and a second one if the name contends for a label; never two at once, and none for
//! longer than it takes to read [`WAYS`] counters.

use std::{
    hash::BuildHasher,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use foldhash::quality::RandomState;

/// Counters kept for each name that may be named, so that a newcomer can prove itself unnamed.
const COUNTERS_PER_NAME: usize = 8;

/// Counters in a row. A row holds two named ones on average. Less than one in a billion is full of them: what else falls
/// into it is counted as other, until contenders of other rows take their labels.
const WAYS: usize = 16;

/// The fewest rows, so that cores seldom meet at one even where few may be named.
const ROWS: usize = 8;

/// Counts are halved after this many observations for each name that may be named, so that yesterday's busiest give
/// way to today's.
const OBSERVATIONS_PER_NAME: u64 = 8_000;

/// A row adds its observations to the sum of all in batches, so that cores seldom write to that one place.
const BATCH: u64 = 16;

/// A name contends for another's label once it was seen this often for sure: passers-by cost one row.
const CONTENDER: u32 = 3;

/// The busiest names: at most `limit` of them at any time.
///
/// Its memory is taken at once and does not grow: 512 bytes for each row of 16 counters, at least `8 * limit` counters in
/// a power of two of rows (100: 32 KiB; 10,000: 4 MiB). It keeps hashes of 64 bits, and no names. Names with the same
/// hash share a counter and a label; two of 100,000 names do so in one of 3 * 10⁹ processes.
#[derive(Debug)]
pub(super) struct Busiest<S = RandomState> {
    limit: usize,
    hasher: S,
    rows: Box<[Mutex<Row>]>,
    /// Labels given out: never less than counters that are named, never more than the limit.
    labels: AtomicUsize,
    /// All observations, but for less than a batch of each row.
    observed: AtomicU64,
    /// How many times counts have been halved.
    age: AtomicU64,
}

impl Busiest {
    pub(super) fn new(limit: usize) -> Self {
        Self::with_hasher(limit, RandomState::default())
    }
}

impl<S: BuildHasher> Busiest<S> {
    fn with_hasher(limit: usize, hasher: S) -> Self {
        let rows = (limit * COUNTERS_PER_NAME / WAYS).next_power_of_two().max(ROWS);
        Self {
            limit,
            hasher,
            rows: (0..rows).map(|index| Mutex::new(Row::new(index))).collect(),
            labels: AtomicUsize::new(0),
            observed: AtomicU64::new(0),
            age: AtomicU64::new(0),
        }
    }

    /// Counts one more of `name`; answers whether it is among the busiest now.
    ///
    /// A name gets a free label at once, another's only when it was seen twice as often for sure: each change leaves a
    /// time series behind, so that there must be few. It looks for the other in one row at a time, the next at its next
    /// observation, so that this takes constant time too.
    pub(super) fn observe(&self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        let mut row = self.row_of(hash);
        if row.observe() {
            self.grow();
        }
        let Some(counter) = row.count(hash) else { return false };
        if !counter.is_named {
            counter.is_named = self.take_free_label();
        }
        let Counter { is_named, count, error, .. } = *counter;
        if is_named || count - error < CONTENDER {
            return is_named;
        }
        let rival = row.next_rival();
        drop(row);
        self.row(rival).unname(count - error) && self.name(hash)
    }

    /// Whether `name` is among the busiest.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        self.row_of(hash).find(hash).is_some_and(|counter| counter.is_named)
    }

    /// Adds a batch of observations. The age is computed here, once for each batch: a division takes longer than an observation.
    fn grow(&self) {
        let observed = self.observed.fetch_add(BATCH, Ordering::Relaxed) + BATCH;
        self.age.fetch_max(observed / (self.limit as u64 * OBSERVATIONS_PER_NAME), Ordering::Relaxed);
    }

    fn take_free_label(&self) -> bool {
        let next = |labels| (labels < self.limit).then_some(labels + 1);
        self.labels.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Gives a label that was taken from another; back to the free ones, if the name got one meanwhile or lost its
    /// counter.
    fn name(&self, hash: u64) -> bool {
        let mut row = self.row_of(hash);
        let counter = row.find(hash);
        let is_counted = counter.is_some();
        match counter {
            Some(counter) if !counter.is_named => counter.is_named = true,
            _ => {
                self.labels.fetch_sub(1, Ordering::Relaxed);
            }
        }
        is_counted
    }

    fn row_of(&self, hash: u64) -> MutexGuard<'_, Row> {
        // The number of rows is a power of two: the remainder is the hash's last bits.
        #[expect(clippy::cast_possible_truncation)]
        self.row(hash as usize)
    }

    /// The row, with counts as old as all others'.
    fn row(&self, index: usize) -> MutexGuard<'_, Row> {
        let age = self.age.load(Ordering::Relaxed);
        // Counts that a panic left half done are still counts.
        let mut row = self.rows[index & (self.rows.len() - 1)].lock().unwrap_or_else(PoisonError::into_inner);
        row.grow_to(age);
        row
    }
}

/// A space-saving sketch of the names with the same last bits of their hash.
#[derive(Debug)]
// A cache line of its own, so that rows which are neighbours do not wait for each other.
#[repr(align(64))]
struct Row {
    counters: [Counter; WAYS],
    /// Observations that were not added to those of all rows yet.
    batch: u64,
    /// How often the counts were halved.
    age: u64,
    /// Where the next contender of this row looks for one that is less busy.
    rival: usize,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counter {
    hash: u64,
    count: u32,
    /// How much of the count may belong to names that held the counter before.
    error: u32,
    is_named: bool,
}

impl Row {
    fn new(index: usize) -> Self {
        Self { counters: [Counter::default(); WAYS], batch: 0, age: 0, rival: index }
    }

    /// Notes an observation; answers whether it completes a batch.
    fn observe(&mut self) -> bool {
        self.batch = (self.batch + 1) % BATCH;
        self.batch == 0
    }

    fn next_rival(&mut self) -> usize {
        self.rival = self.rival.wrapping_add(1);
        self.rival
    }

    fn find(&mut self, hash: u64) -> Option<&mut Counter> {
        self.counters.iter_mut().find(|counter| counter.hash == hash)
    }

    /// Counts one more; of a name that finds no counter, none.
    fn count(&mut self, hash: u64) -> Option<&mut Counter> {
        let known = self.counters.iter().position(|counter| counter.hash == hash);
        let index = known.or_else(|| self.admit(hash))?;
        let counter = &mut self.counters[index];
        counter.count += 1;
        Some(counter)
    }

    /// A new name takes over the least counter, and its count as its own possible error; none if all are named.
    fn admit(&mut self, hash: u64) -> Option<usize> {
        let index = self.least(false)?;
        let error = self.counters[index].count;
        self.counters[index] = Counter { hash, count: error, error, is_named: false };
        Some(index)
    }

    /// Takes the label of the least that is named, if `count` is more than twice as much; answers whether it did.
    fn unname(&mut self, count: u32) -> bool {
        let Some(least) = self.least(true) else { return false };
        let least = &mut self.counters[least];
        let is_less = count > 2 * least.count;
        least.is_named = !is_less;
        is_less
    }

    /// The least counter among the named or the others.
    fn least(&self, is_named: bool) -> Option<usize> {
        // All in one number: a comparison that a processor need not guess the outcome of.
        let rank = |(index, counter): (usize, &Counter)| {
            u64::from(counter.is_named != is_named) << 63 | u64::from(counter.count) << 8 | index as u64
        };
        let least = self.counters.iter().enumerate().map(rank).min()?;
        (least >> 63 == 0).then_some((least & 0xff) as usize)
    }

    /// Halves the counts for each window that passed since.
    fn grow_to(&mut self, age: u64) {
        // Another core may have read a later sum than ours.
        let windows = age.saturating_sub(self.age);
        if windows == 0 {
            return;
        }
        self.age = age;
        let halvings = u32::try_from(windows).map_or(31, |windows| windows.min(31));
        for counter in &mut self.counters {
            counter.count >>= halvings;
            counter.error >>= halvings;
        }
    }
}

#[cfg(test)]
mod tests;
