//! Which keys and names nobody has, for as long as the feed has brought no news of them.
//!
//! Lock-free and bounded: they share a number of slots, each with the newest revision at which one of its own was heard
//! of. Two of one slot end each other's absence in vain, which costs a question and is never wrong.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tenancy::route::Revision;

const SLOTS: usize = 4_096;

/// Nobody had a key or name at that moment of that history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Absence {
    history: u64,
    as_of: Revision,
}

/// When keys and names were heard of.
pub(super) struct Heard {
    slots: Box<[AtomicU64]>,
    history: AtomicU64,
    /// Seeded at random, so that nobody chooses some that share a slot.
    hasher: RandomState,
}

impl Heard {
    pub(super) fn new() -> Self {
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { slots, history: AtomicU64::new(0), hasher: RandomState::new() }
    }

    fn slot(&self, key: &impl Hash) -> &AtomicU64 {
        #[allow(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
        let hash = self.hasher.hash_one(key) as usize;
        &self.slots[hash % SLOTS]
    }

    /// Somebody has the key or name.
    pub(super) fn hear(&self, key: &impl Hash, at: Revision) {
        self.slot(key).fetch_max(at.0, SeqCst);
    }

    /// Revisions from here on are of another history.
    pub(super) fn begin_history(&self) {
        // First: whoever reads an emptied slot sees the new history too.
        self.history.fetch_add(1, SeqCst);
        self.slots.iter().for_each(|slot| slot.store(0, SeqCst));
    }

    /// That nobody has it. The caller sees to it that the history does not change meanwhile.
    pub(super) fn absent(&self, as_of: Revision) -> Absence {
        Absence { history: self.history.load(SeqCst), as_of }
    }

    /// Whether nothing was heard of it since.
    pub(super) fn is_absent(&self, key: &impl Hash, absence: Absence) -> bool {
        self.slot(key).load(SeqCst) <= absence.as_of.0 && self.history.load(SeqCst) == absence.history
    }
}

#[cfg(test)]
mod tests {
    use tenancy::KeyId;

    use super::*;

    fn key(letter: char) -> KeyId {
        letter.to_string().repeat(20).parse().unwrap()
    }

    #[test]
    fn an_absence_ends_with_news_of_its_key_and_with_its_history() {
        let keys = Heard::new();
        let absence = keys.absent(Revision(5));
        keys.hear(&key('a'), Revision(5));
        assert!(keys.is_absent(&key('a'), absence), "the answer knew of that");
        // Not one that shares the slot.
        let other = ('b'..='z').map(key).find(|it| !std::ptr::eq(keys.slot(it), keys.slot(&key('a')))).unwrap();
        keys.hear(&other, Revision(6));
        assert!(keys.is_absent(&key('a'), absence), "news of others");
        keys.hear(&key('a'), Revision(7));
        assert!(!keys.is_absent(&key('a'), absence));
        keys.begin_history();
        let absence = keys.absent(Revision(1));
        assert!(keys.is_absent(&key('a'), absence), "numbers of the old history mean nothing");
        keys.begin_history();
        assert!(!keys.is_absent(&key('a'), absence));
    }
}
