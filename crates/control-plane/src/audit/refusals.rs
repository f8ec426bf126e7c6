//! Calls that were refused: somebody shows a token that is none, or asks for more than its role allows.
//!
//! The first of a window is in the trail before it is answered; the others of it are counted, and told once it has ended.
//! Past so many callers at once, all others count as one, so that a flood is a few records and bounded memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use sea_orm::DbErr;
use service::telemetry::RequestContext;
use tenancy::audit::{Chain, Event};
use tokio_util::sync::CancellationToken;

use super::{Account, Deed};
use crate::registry::Registry;

/// How long refusals are counted together.
const WINDOW: Duration = Duration::from_mins(1);
/// Callers that are told apart.
const MOST: usize = 1_000;
/// How often it is looked which windows have ended.
const LOOK: Duration = Duration::from_secs(5);
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_mins(5);
/// Who shows a token that is nobody's.
const UNKNOWN: &str = "unknown";

/// What was refused.
type Action = &'static str;
const BAD_TOKEN: Action = "security.bad-token";
const CALL_REFUSED: Action = "security.call-refused";

/// Refused calls of this replica; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Refusals(Arc<Mutex<Tally>>);

impl Refusals {
    /// Tells of a call that was refused to `by`, or to somebody who proved to be nobody. `call` is its method and its path's
    /// pattern.
    pub(crate) async fn tell(&self, registry: &Registry, by: Option<&str>, call: String) {
        let action = if by.is_some() { CALL_REFUSED } else { BAD_TOKEN };
        let account = Account::new(by.unwrap_or(UNKNOWN).to_owned());
        let (_, event) = Deed::on_platform(action, call).event(Some(&account), registry.now());
        let from = || RequestContext::current(RequestContext::client).flatten().map(network).unwrap_or_default();
        let who = (action, by.map_or_else(from, str::to_owned).into_boxed_str());
        let Some(who) = self.tally().note(who, &event, Instant::now()) else { return };
        let (this, registry) = (self.clone(), registry.clone());
        // A task of its own: a caller who hangs up does not end it.
        let told = tokio::spawn(async move {
            if let Err(error) = write(&registry, vec![event.clone()]).await {
                tracing::warn!(%error, "could not write down a refused call; it is told with the others of its minute");
                this.tally().untold(who, event, Instant::now());
            }
        });
        // It does not panic, and the runtime ends after the last call.
        let _ = told.await;
    }

    /// Tells what was only counted, until no request is at work any more.
    pub(crate) async fn sum_up(self, registry: Registry, drained: CancellationToken) {
        let counter = opentelemetry::global::meter("control-plane")
            .u64_counter("refused_calls_told")
            .with_description("Records of refused calls that were counted together, by outcome.")
            .build();
        let mut pause = LOOK;
        loop {
            let is_last = drained.run_until_cancelled(tokio::time::sleep(pause)).await.is_none();
            let ended = self.tally().ended((!is_last).then(Instant::now));
            let events: Vec<Event> = ended.iter().filter_map(|(_, it)| it.summed_up()).collect();
            let count = events.len() as u64;
            let told = write(&registry, events).await;
            counter.add(count, &[KeyValue::new("outcome", if told.is_ok() { "ok" } else { "failed" })]);
            match told {
                Ok(()) => pause = LOOK,
                Err(error) => {
                    tracing::warn!(%error, "could not write down how many calls were refused");
                    self.tally().put_back(ended);
                    pause = (pause * 2).min(LONGEST);
                }
            }
            if is_last {
                return;
            }
        }
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        // Each change of it is whole before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn write(registry: &Registry, events: Vec<Event>) -> Result<(), DbErr> {
    if events.is_empty() {
        return Ok(());
    }
    let mut change = registry.change().await?;
    for event in events {
        change.record(Chain::Platform, event);
    }
    change.commit().await.map(drop)
}

/// Who has one address of IPv6 has a network of them: they count as one.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// An action, and whose: an operator's name, or a network.
type Who = (Action, Box<str>);

/// What each did in its window.
#[derive(Default)]
struct Tally(HashMap<Who, Counted>);

struct Counted {
    begun: Instant,
    count: u64,
    /// Of them are in the trail.
    told: u64,
    last: Event,
}

impl Counted {
    /// One record of all that were not told, if there are any.
    fn summed_up(&self) -> Option<Event> {
        let untold = self.count - self.told;
        let detail = if self.told > 0 { "so many more within a minute" } else { "so many within a minute" };
        let told = Event { count: Some(untold), detail: Some(detail.to_owned()), ..self.last.clone() };
        (untold > 0).then_some(Event { id: uuid::Uuid::now_v7(), ..told })
    }
}

impl Tally {
    /// Counts it. Answers whose it is if it is the first of its window, which is to be told at once.
    fn note(&mut self, mut who: Who, event: &Event, now: Instant) -> Option<Who> {
        if self.0.len() >= MOST && !self.0.contains_key(&who) {
            who.1 = "".into();
        }
        let fresh = || Counted { begun: now, count: 0, told: 0, last: event.clone() };
        let counted = self.0.entry(who.clone()).or_insert_with(fresh);
        counted.count += 1;
        counted.last.clone_from(event);
        let is_first = counted.count == 1;
        counted.told += u64::from(is_first);
        is_first.then_some(who)
    }

    /// What was to be told at once could not be.
    fn untold(&mut self, who: Who, event: Event, now: Instant) {
        let fresh = || Counted { begun: now, count: 1, told: 1, last: event };
        let counted = self.0.entry(who).or_insert_with(fresh);
        counted.told = counted.told.saturating_sub(1);
    }

    /// Takes out the windows that have ended by now, or all.
    fn ended(&mut self, now: Option<Instant>) -> Vec<(Who, Counted)> {
        let has_ended =
            |counted: &Counted| now.is_none_or(|now| now.saturating_duration_since(counted.begun) >= WINDOW);
        self.0.extract_if(|_, counted| has_ended(counted)).collect()
    }

    /// They could not be told. What was counted since is added.
    fn put_back(&mut self, ended: Vec<(Who, Counted)>) {
        for ((action, name), before) in ended.into_iter().filter(|(_, it)| it.count > it.told) {
            let is_known = self.0.len() < MOST || self.0.contains_key(&(action, name.clone()));
            let who = (action, if is_known { name } else { "".into() });
            match self.0.get_mut(&who) {
                Some(counted) => {
                    counted.count += before.count;
                    counted.told += before.told;
                }
                None => {
                    self.0.insert(who, before);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: Action) -> Event {
        let account = Account::new("ann".to_owned());
        Deed::on_platform(action, "GET /v1/tenants").event(Some(&account), chrono::DateTime::UNIX_EPOCH).1
    }

    fn told(tally: &mut Tally, who: &str, times: u64, at: Instant) -> usize {
        let event = event(CALL_REFUSED);
        (0..times).filter(|_| tally.note((CALL_REFUSED, who.into()), &event, at).is_some()).count()
    }

    fn counts(ended: &[(Who, Counted)]) -> Vec<u64> {
        ended.iter().filter_map(|(_, it)| it.summed_up()?.count).collect()
    }

    #[test]
    fn the_first_of_a_window_is_told_at_once_and_the_others_as_one() {
        let (mut tally, begin) = (Tally::default(), Instant::now());
        assert_eq!(told(&mut tally, "ann", 50, begin), 1);
        assert_eq!(told(&mut tally, "bob", 1, begin), 1, "each caller counts alone");
        assert!(tally.ended(Some(begin + WINDOW / 2)).is_empty());
        assert_eq!(counts(&tally.ended(Some(begin + WINDOW))), [49], "who was told of at once is not told of again");
        assert_eq!(told(&mut tally, "ann", 5, begin + WINDOW), 1, "another window");
    }

    #[test]
    fn what_could_not_be_written_is_told_later_and_once() {
        let (mut tally, begin) = (Tally::default(), Instant::now());
        told(&mut tally, "ann", 3, begin);
        tally.untold((CALL_REFUSED, "ann".into()), event(CALL_REFUSED), begin);
        let ended = tally.ended(None);
        assert_eq!(counts(&ended), [3]);
        told(&mut tally, "ann", 2, begin);
        tally.put_back(ended);
        assert_eq!(counts(&tally.ended(None)), [4], "of five, one was told at once");
    }

    #[test]
    fn callers_without_end_take_no_memory_without_end() {
        let (mut tally, begin) = (Tally::default(), Instant::now());
        let all = 3 * MOST as u64;
        let at_once: usize = (0..all).map(|number| told(&mut tally, &number.to_string(), 1, begin)).sum();
        assert_eq!((tally.0.len(), at_once), (MOST + 1, MOST + 1));
        assert_eq!(counts(&tally.ended(None)), [all - at_once as u64], "none is forgotten");
    }
}
