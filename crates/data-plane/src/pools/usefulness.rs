//! How useful a tenant's connections are: uses, each of which counts less the longer ago it was.
//!
//! It is the CRF of the LRFU policies (Lee et al., 2001): with a long half-life a scan over all tenants pushes out none that is
//! used often, and among tenants that are used alike the one used longest ago gives way.

use std::time::{Duration, Instant};

/// A use counts half after this time.
const HALF_LIFE: Duration = Duration::from_secs(30);

/// Uses with their ages, in two numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usefulness {
    weight: f32,
    at: Instant,
}

impl Usefulness {
    pub(super) const fn new(now: Instant) -> Self {
        Self { weight: 0.0, at: now }
    }

    pub(super) fn note(&mut self, now: Instant) {
        self.weight = self.at(now) + 1.0;
        self.at = now;
    }

    pub(super) fn at(&self, now: Instant) -> f32 {
        let age = now.saturating_duration_since(self.at).as_secs_f32();
        self.weight * (-age / HALF_LIFE.as_secs_f32()).exp2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn often_beats_lately_and_lately_breaks_ties() {
        let begin = Instant::now();
        let used = |times: &[u64]| {
            let mut usefulness = Usefulness::new(begin);
            for at in times {
                usefulness.note(begin + Duration::from_secs(*at));
            }
            usefulness.at(begin + Duration::from_secs(20))
        };
        assert!(used(&[1, 2, 3, 4]) > used(&[19]), "a scan pushes out none that is used often");
        assert!(used(&[19]) > used(&[18]));
        let forgotten = Usefulness { weight: 1_000.0, at: begin }.at(begin + Duration::from_mins(10));
        assert!(used(&[19]) > forgotten, "what was used often long ago");
    }
}
