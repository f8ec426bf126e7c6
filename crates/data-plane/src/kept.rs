//! What was found in a cache a moment ago, kept by whoever looks for it at every request: a look-up costs more than most steps of
//! the walk. It is never believed for long: the cache is asked again in the next tick, so that it knows what is in use and lets
//! go of something else. Whether what is kept still counts, its own flags say.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

/// How long a cache may not hear that something is in use.
const TICK: Duration = Duration::from_millis(250);

/// The last find, and the tick in which the cache was asked.
pub(crate) struct Kept<T>(Mutex<(Weak<T>, u64)>);

impl<T> Kept<T> {
    /// What was found in this tick. `now` is the time since a moment that is always the same for this place.
    pub(crate) fn get(&self, now: Duration) -> Option<Arc<T>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.1 == tick(now)).then(|| kept.0.upgrade()).flatten()
    }

    /// Keeps what the cache has just answered.
    pub(crate) fn keep(&self, found: &Arc<T>, now: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (Arc::downgrade(found), tick(now));
    }
}

/// Never 0, in which nothing was found yet.
fn tick(now: Duration) -> u64 {
    u64::try_from(now.as_nanos() / TICK.as_nanos()).unwrap_or(u64::MAX - 1) + 1
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new((Weak::new(), 0)))
    }
}

impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_believed_for_a_tick_and_keeps_nothing_alive() {
        let (kept, found, begin) = (Kept::default(), Arc::new(7), TICK * 40);
        assert_eq!(kept.get(Duration::ZERO), None, "nothing was found yet");
        kept.keep(&found, begin);
        assert_eq!(kept.get(begin + TICK / 2).as_deref(), Some(&7));
        assert_eq!(kept.get(begin + TICK), None, "the cache is asked again");
        drop(found);
        assert_eq!(kept.get(begin), None, "the cache alone keeps it alive");
    }
}
