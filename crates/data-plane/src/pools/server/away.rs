//! Which addresses do not answer, or have no room: remembered with a growing pause, after which one request at a time tries again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::dial::DialError;

/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Addresses at most: a server has one, and for a while two when it moves.
const MOST: usize = 1_000;

/// The addresses of one server that do not answer, or have no room.
#[derive(Default)]
pub(super) struct Aways(HashMap<Arc<str>, Away>);

struct Away {
    until: Instant,
    pause: Duration,
    error: Arc<DialError>,
    is_probing: bool,
}

impl Aways {
    /// Why nothing is dialled there now, if nothing is.
    pub(super) fn refuses(&self, address: &str, now: Instant) -> Option<Arc<DialError>> {
        let away = self.0.get(address)?;
        (now < away.until || away.is_probing).then(|| Arc::clone(&away.error))
    }

    /// A dial begins.
    pub(super) fn probe(&mut self, address: &str) {
        if let Some(away) = self.0.get_mut(address) {
            away.is_probing = true;
        }
    }

    /// A dial ended before the server was asked: another may try.
    pub(super) fn was_not_tried(&mut self, address: &str) {
        if let Some(away) = self.0.get_mut(address) {
            away.is_probing = false;
        }
    }

    pub(super) fn is_back(&mut self, address: &str) {
        self.0.remove(address);
    }

    pub(super) fn failed(&mut self, address: &Arc<str>, error: &Arc<DialError>, now: Instant) {
        if self.0.len() >= MOST && !self.0.contains_key(address) {
            self.0.retain(|_, away| now < away.until);
        }
        let before = self.0.get(address);
        let pause = before.map_or(PAUSES.0, |away| {
            // Those that were under way when the first failed tell nothing new.
            if now < away.until { away.pause } else { (away.pause * 2).min(PAUSES.1) }
        });
        let error = Arc::clone(error);
        self.0.insert(Arc::clone(address), Away { until: now + pause, pause, error, is_probing: false });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_tries_again_after_a_growing_pause() {
        let (mut aways, address, begin) = (Aways::default(), Arc::from("db:5432"), Instant::now());
        let error = Arc::new(DialError::ServerAway(None));
        aways.failed(&address, &error, begin);
        assert!(aways.refuses(&address, begin).is_some());
        assert!(aways.refuses("other:5432", begin).is_none());
        let later = begin + PAUSES.0;
        assert!(aways.refuses(&address, later).is_none(), "one may try");
        aways.probe(&address);
        assert!(aways.refuses(&address, later).is_some(), "and no other meanwhile");
        aways.was_not_tried(&address);
        assert!(aways.refuses(&address, begin).is_some(), "that told nothing of the server");
        assert!(aways.refuses(&address, later).is_none(), "and another may try");
        aways.probe(&address);
        aways.failed(&address, &error, later);
        assert!(aways.refuses(&address, later + PAUSES.0).is_some(), "the next pause is longer");
        assert!(aways.refuses(&address, later + PAUSES.0 * 2).is_none());
        aways.is_back(&address);
        assert!(aways.refuses(&address, later).is_none());
    }
}
