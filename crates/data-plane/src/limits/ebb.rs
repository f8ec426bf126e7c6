//! What is remembered of meters that there was no room for: until when each owes something.
//!
//! A meter that comes back must not start full before time has paid its debt. So many may be forgotten that their keys are
//! not kept; two of them may share a place, and then the one owes what the other does. Each has a place in two rows, and
//! owes the lesser of both, so that it takes two such meetings to make it owe too much. None ever owes too little.

use std::sync::atomic::{AtomicU64, Ordering};

/// Places in a row; two rows are a megabyte.
const PLACES: usize = 1 << 16;

pub(super) struct Ebb(Box<[AtomicU64]>);

impl Ebb {
    pub(super) fn new() -> Self {
        Self((0..2 * PLACES).map(|_| AtomicU64::new(0)).collect())
    }

    /// Remembers of the key with this hash when its burst is there again.
    pub(super) fn note(&self, hash: u64, full_at: u64) {
        for place in places(hash) {
            self.0[place].fetch_max(full_at, Ordering::Relaxed);
        }
    }

    /// When the burst of the key with this hash is there again, at the latest.
    pub(super) fn full_at(&self, hash: u64) -> u64 {
        places(hash).map(|place| self.0[place].load(Ordering::Relaxed)).into_iter().min().unwrap_or(0)
    }
}

fn places(hash: u64) -> [usize; 2] {
    let place = |bits: u64| usize::try_from(bits).unwrap_or(0) % PLACES;
    [place(hash), PLACES + place(hash >> 32)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_owed_is_owed_still_and_others_owe_nothing() {
        let ebb = Ebb::new();
        let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for number in 1..=1_000 {
            ebb.note(hash(number), number);
            ebb.note(hash(number), 1);
        }
        for number in 1..=1_000 {
            assert!(ebb.full_at(hash(number)) >= number, "{number} owes too little");
        }
        let strangers = (2_000..3_000).filter(|number| ebb.full_at(hash(*number)) > 0).count();
        assert!(strangers < 10, "{strangers} of 1000 that were never seen owe something");
    }
}
