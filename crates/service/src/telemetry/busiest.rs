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

/// A name contends for another's label each time it was seen this often again for sure: passers-by cost one row.
const CONTENDS_EVERY: u32 = 4;

/// The bit of a count that tells whether its name is named.
const NAMED: u32 = 1 << 31;

/// The busiest names: at most `limit` of them at any time.
///
/// Its memory is taken at once and does not grow: 320 bytes for each row of 16 counters, at least `8 * limit` counters in
/// a power of two of rows (100: 20 KiB; 10,000: 2.5 MiB). It keeps hashes of 64 bits, and no names. Names with the same
/// hash share a counter and a label; two of 100,000 names do so in one of 3 * 10⁹ processes.
#[derive(Debug)]
pub(super) struct Busiest<S = RandomState> {
    limit: usize,
    hasher: S,
    rows: Box<[Line]>,
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
            rows: (0..rows).map(|index| Line(Mutex::new(Row::new(index)))).collect(),
            labels: AtomicUsize::new(0),
            observed: AtomicU64::new(0),
            age: AtomicU64::new(0),
        }
    }

    /// Counts one more of `name`; answers whether it is among the busiest now.
    ///
    /// A name gets a free label at once, another's only when it was seen twice as often for sure: each change leaves a
    /// time series behind, so that there must be few. It looks for the other in one row at a time, the next when it
    /// contends again, so that this takes constant time too.
    pub(super) fn observe(&self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        let mut row = self.row_of(hash);
        if row.observe() {
            self.grow();
        }
        let Some(way) = row.count(hash) else { return false };
        if row.is_named(way) {
            return true;
        }
        if self.take_free_label() {
            row.counts[way] |= NAMED;
            return true;
        }
        let sure = row.counts[way] - row.errors[way];
        if !sure.is_multiple_of(CONTENDS_EVERY) {
            return false;
        }
        let rival = row.next_rival();
        drop(row);
        self.row(rival).unname(sure) && self.name(hash)
    }

    /// Whether `name` is among the busiest.
    pub(super) fn is_named(&self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name);
        let row = self.row_of(hash);
        row.find(hash).is_some_and(|way| row.is_named(way))
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
        let found = row.find(hash);
        match found {
            Some(way) if !row.is_named(way) => row.counts[way] |= NAMED,
            _ => {
                self.labels.fetch_sub(1, Ordering::Relaxed);
            }
        }
        found.is_some()
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
        let mut row = self.rows[index & (self.rows.len() - 1)].0.lock().unwrap_or_else(PoisonError::into_inner);
        row.grow_to(age);
        row
    }
}

/// A row in cache lines of its own, so that rows which are neighbours do not wait for each other.
#[derive(Debug)]
#[repr(align(64))]
struct Line(Mutex<Row>);

/// A space-saving sketch of the names with the same last bits of their hash. A counter is one place in each array.
#[derive(Debug)]
struct Row {
    /// The first byte of each hash: eight of them are compared at once.
    tags: [u8; WAYS],
    hashes: [u64; WAYS],
    /// Observations, far fewer than [`NAMED`], and that bit.
    counts: [u32; WAYS],
    /// How much of each count may belong to names that held the counter before.
    errors: [u32; WAYS],
    /// Observations that were not added to those of all rows yet.
    batch: u64,
    /// How often the counts were halved.
    age: u64,
    /// Where the next contender of this row looks for one that is less busy.
    rival: usize,
}

/// Rows are told apart by the last bits.
const fn tag(hash: u64) -> u8 {
    hash.to_be_bytes()[0]
}

impl Row {
    fn new(index: usize) -> Self {
        Self {
            tags: [0; WAYS],
            hashes: [0; WAYS],
            counts: [0; WAYS],
            errors: [0; WAYS],
            batch: 0,
            age: 0,
            rival: index,
        }
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

    fn find(&self, hash: u64) -> Option<usize> {
        const LOW: u64 = u64::from_le_bytes([0x01; 8]);
        const HIGH: u64 = u64::from_le_bytes([0x80; 8]);
        let (words, _) = self.tags.as_chunks();
        words.iter().enumerate().find_map(|(word, tags)| {
            // A byte is zero where the tags are equal; then its highest bit is set in `found`, and maybe that of a byte after it.
            let differs = u64::from_le_bytes(*tags) ^ (u64::from(tag(hash)) * LOW);
            let mut found = differs.wrapping_sub(LOW) & !differs & HIGH;
            while found != 0 {
                let way = 8 * word + found.trailing_zeros() as usize / 8;
                if self.hashes[way] == hash {
                    return Some(way);
                }
                found &= found - 1;
            }
            None
        })
    }

    fn is_named(&self, way: usize) -> bool {
        self.counts[way] & NAMED != 0
    }

    /// Counts one more; of a name that finds no counter, none.
    fn count(&mut self, hash: u64) -> Option<usize> {
        let way = self.find(hash).or_else(|| self.admit(hash))?;
        self.counts[way] += 1;
        Some(way)
    }

    /// A new name takes over the least counter, and its count as its own possible error; none if all are named.
    fn admit(&mut self, hash: u64) -> Option<usize> {
        let way = self.least(0)?;
        (self.tags[way], self.hashes[way]) = (tag(hash), hash);
        self.errors[way] = self.counts[way];
        Some(way)
    }

    /// Takes the label of the least that is named, if `count` is more than twice as much; answers whether it did.
    fn unname(&mut self, count: u32) -> bool {
        let Some(way) = self.least(NAMED) else { return false };
        let least = self.counts[way] & !NAMED;
        let is_less = count > 2 * least;
        if is_less {
            self.counts[way] = least;
        }
        is_less
    }

    /// The least counter among those whose bit [`NAMED`] is as here.
    fn least(&self, named: u32) -> Option<usize> {
        // All in one number, in which the others come last: a comparison that a processor need not guess the outcome of.
        let rank = |(way, count): (usize, &u32)| u64::from(count ^ named) << 8 | way as u64;
        let least = self.counts.iter().enumerate().map(rank).min()?;
        (least < u64::from(NAMED) << 8).then_some((least & 0xff) as usize)
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
        for (count, error) in self.counts.iter_mut().zip(&mut self.errors) {
            *count = *count & NAMED | (*count & !NAMED) >> halvings;
            *error >>= halvings;
        }
    }
}

#[cfg(test)]
mod tests;
