//! Which events are written one by one, and which are counted: whoever sends a flood gets a number, not a flood of records.
//!
//! Bounded: past so many callers at once, all others count as one.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tenancy::audit::{Notice, Noticed};

/// How long things are counted together.
const WINDOW: Duration = Duration::from_mins(1);
/// Callers that are told apart.
const MOST: usize = 10_000;
/// Bad credentials in a window that make a burst.
const BURST: u64 = 10;

/// Counts what each caller did in its window.
#[derive(Default)]
pub(super) struct Tally(HashMap<(Notice, Box<str>), Counted>);

struct Counted {
    begun: Instant,
    count: u64,
    /// Of them are told already.
    told: u64,
    last: Noticed,
}

/// How many of a window are told one by one.
const fn one_by_one(notice: Notice) -> u64 {
    match notice {
        Notice::CrossTenantAttempt | Notice::BackgroundSession => 100,
        Notice::SuspendedRefused | Notice::DatabaseRefused => 10,
        Notice::LimitHit => 1,
        Notice::BadCredentials => 0,
        Notice::EventsDropped | Notice::Other => u64::MAX,
    }
}

impl Tally {
    /// Counts it; answers what is to be written at once.
    pub(super) fn note(&mut self, who: &str, noticed: Noticed, now: Instant) -> Option<Noticed> {
        let notice = noticed.notice;
        let mut key = (notice, who.into());
        if self.0.len() >= MOST && !self.0.contains_key(&key) {
            key.1 = "".into();
        }
        let counted =
            self.0.entry(key).or_insert_with(|| Counted { begun: now, count: 0, told: 0, last: noticed.clone() });
        counted.count += 1;
        counted.last = noticed;
        if counted.count <= one_by_one(notice) {
            counted.told += 1;
            return Some(counted.last.clone());
        }
        if notice == Notice::BadCredentials && counted.count == BURST {
            counted.told = BURST;
            return Some(Noticed { count: Some(BURST), ..counted.last.clone() });
        }
        None
    }

    /// What is to be written of windows that have ended by now, or of all.
    pub(super) fn ended(&mut self, now: Option<Instant>) -> Vec<Noticed> {
        let has_ended =
            |counted: &Counted| now.is_none_or(|now| now.saturating_duration_since(counted.begun) >= WINDOW);
        let ended = self.0.extract_if(|_, counted| has_ended(counted));
        let untold = ended.filter_map(|((notice, _), counted)| {
            // Fewer than a burst of bad credentials are nothing.
            let is_told = notice != Notice::BadCredentials || counted.count >= BURST;
            (counted.count > counted.told && is_told).then(|| {
                let detail = match &counted.last.detail {
                    Some(detail) => format!("so many more within a minute, the last of them: {detail}"),
                    None => "so many more within a minute".to_owned(),
                };
                Noticed { count: Some(counted.count - counted.told), detail: Some(detail), ..counted.last }
            })
        });
        untold.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::noticed;
    use super::*;

    fn told(tally: &mut Tally, who: &str, notice: Notice, times: u64, at: Instant) -> usize {
        (0..times).filter_map(|_| tally.note(who, noticed(notice), at)).count()
    }

    #[test]
    fn a_flood_is_counted_and_what_is_rare_is_told_one_by_one() {
        let (mut tally, begin) = (Tally::default(), Instant::now());
        assert_eq!(told(&mut tally, "key:a", Notice::CrossTenantAttempt, 250, begin), 100);
        assert_eq!(told(&mut tally, "key:b", Notice::CrossTenantAttempt, 3, begin), 3, "each caller counts alone");
        assert_eq!(told(&mut tally, "t", Notice::LimitHit, 50, begin), 1);
        assert!(tally.ended(Some(begin + WINDOW / 2)).is_empty());
        let ended = tally.ended(Some(begin + WINDOW));
        let mut counts: Vec<_> = ended.iter().map(|it| (it.notice.action(), it.count)).collect();
        counts.sort_unstable();
        assert_eq!(counts, [("security.cross-tenant-attempt", Some(150)), ("security.limit-hit", Some(49))]);
        assert_eq!(told(&mut tally, "t", Notice::LimitHit, 5, begin + WINDOW), 1, "another window");
    }

    #[test]
    fn bad_credentials_are_told_as_a_burst_and_never_one_by_one() {
        let (mut tally, begin) = (Tally::default(), Instant::now());
        assert_eq!(told(&mut tally, "127.0.0.1", Notice::BadCredentials, BURST - 1, begin), 0);
        assert!(tally.ended(None).is_empty(), "a few are nothing");
        let first: Vec<_> =
            (0..1_000).filter_map(|_| tally.note("127.0.0.1", noticed(Notice::BadCredentials), begin)).collect();
        assert_eq!(first.iter().map(|it| it.count).collect::<Vec<_>>(), [Some(BURST)]);
        let rest = tally.ended(None);
        assert_eq!(rest.iter().map(|it| it.count).collect::<Vec<_>>(), [Some(1_000 - BURST)]);
    }

    #[test]
    fn callers_without_end_take_no_memory_without_end() {
        let (mut tally, begin) = (Tally::default(), Instant::now());
        for number in 0..3 * MOST {
            tally.note(&number.to_string(), noticed(Notice::LimitHit), begin);
        }
        assert_eq!(tally.0.len(), MOST + 1);
        let all: u64 = tally.ended(None).iter().filter_map(|it| it.count).sum();
        assert_eq!(all, 2 * MOST as u64 - 1, "none is forgotten");
    }
}
