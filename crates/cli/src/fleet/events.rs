//! What happened to a rollout between two looks at it.

use serde::Serialize;

use super::rollout::{Counts, Rollout, Target};
use crate::output::plain;

/// One thing that happened, as `--json` tells it: a line each.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// What a migration does that holds others up, before it is ordered; or that it could not be rehearsed.
    Finding { engine: String, migration: Option<String>, kind: String, detail: String },
    /// It was ordered, or somebody begins to watch it.
    Rollout { id: String, version: u32, targets: u64, already: u64, waves: usize },
    /// A wave began.
    WaveBegun { wave: usize, kind: String, targets: u64 },
    /// A wave is over.
    WaveEnded { wave: usize, done: u64, failed: u64, skipped: u64 },
    /// A target failed for good.
    Failed { tenant: String, error: String },
    /// It is in another state.
    State { state: String, note: Option<String> },
    /// How far it is.
    Progress { done: u64, failed: u64, skipped: u64, left: u64 },
}

impl Event {
    /// As a line for people.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Rollout { id, version, targets, already, waves } => {
                let (targets, waves) = (some(*targets, "target"), some(*waves as u64, "wave"));
                format!("rollout {id} to version {version}: {targets} in {waves}; {already} had it already")
            }
            Self::Finding { engine, migration, detail, .. } => {
                let what = migration.as_deref().unwrap_or("not rehearsed");
                format!("FINDING {what} ({engine}): {}", plain(detail))
            }
            Self::WaveBegun { wave, kind, targets } => {
                format!("wave {wave} ({kind}) begins: {}", some(*targets, "target"))
            }
            Self::WaveEnded { wave, done, failed, skipped } => {
                format!("wave {wave} is over: {done} done, {failed} failed, {skipped} skipped")
            }
            Self::Failed { tenant, error } => format!("FAILED {tenant}: {}", plain(error)),
            Self::State { state, note: Some(note) } => format!("{state}: {}", plain(note)),
            Self::State { state, note: None } => state.clone(),
            Self::Progress { done, failed, skipped, left } => {
                format!("{done} done, {failed} failed, {skipped} skipped, {left} left")
            }
        }
    }

    /// How far it is.
    pub(super) const fn progress(counts: Counts) -> Self {
        let Counts { pending, running, done, failed, skipped } = counts;
        Self::Progress { done, failed, skipped, left: pending + running }
    }
}

/// So many of them.
pub(super) fn some(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// What happened since the look before, in the order in which it may have.
pub(super) fn between(before: Option<&Rollout>, now: &Rollout) -> Vec<Event> {
    let mut events = Vec::new();
    if before.is_none() {
        let (id, targets) = (now.id.clone(), now.counts.all());
        events.push(Event::Rollout { id, version: now.version, targets, already: now.already, waves: now.waves.len() });
    }
    for (number, wave) in now.waves.iter().enumerate() {
        let was = before.and_then(|before| before.waves.get(number));
        let is_new = |then: Option<&String>, is: Option<&String>| then.is_none() && is.is_some();
        if is_new(was.and_then(|was| was.opened_at.as_ref()), wave.opened_at.as_ref()) {
            events.push(Event::WaveBegun { wave: number, kind: wave.kind.clone(), targets: wave.size });
        }
        if is_new(was.and_then(|was| was.ended_at.as_ref()), wave.ended_at.as_ref()) {
            let Counts { done, failed, skipped, .. } = wave.counts;
            events.push(Event::WaveEnded { wave: number, done, failed, skipped });
        }
    }
    // That it runs goes without saying, unless it did not before.
    let said = before.map_or("running", |before| &before.state);
    // It may have gone on and paused again between two looks: its note tells.
    let waits_again = now.state == "paused" && before.is_some_and(|before| before.note != now.note);
    if said != now.state || waits_again {
        events.push(Event::State { state: now.state.clone(), note: now.note.clone() });
    }
    events
}

/// That a target failed.
pub(super) fn failed(target: &Target) -> Event {
    Event::Failed { tenant: target.name().to_owned(), error: target.error.clone().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(state: &str, waves: &str) -> Rollout {
        let text = format!(
            r#"{{"id":"01a","version":3,"state":"{state}","already":7,"counts":{{"pending":2,"done":1}},"waves":[{waves}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn what_happened_between_two_looks_is_told_once() {
        let canary = r#"{"kind":"canary","size":1,"opened_at":"t"}"#;
        let over = r#"{"kind":"canary","size":1,"opened_at":"t","ended_at":"t","counts":{"done":1}}"#;
        let waiting = r#"{"kind":"wave","size":2}"#;
        let begun = r#"{"kind":"wave","size":2,"opened_at":"t"}"#;
        let first = rollout("running", &format!("{canary},{waiting}"));
        let second = rollout("running", &format!("{over},{begun}"));
        let third = rollout("paused", &format!("{over},{begun}"));
        let lines = |before, now| between(before, now).iter().map(Event::line).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(lines(None, &first), @r"
        rollout 01a to version 3: 3 targets in 2 waves; 7 had it already
        wave 0 (canary) begins: 1 target
        ");
        insta::assert_snapshot!(lines(Some(&first), &second), @r"
        wave 0 is over: 1 done, 0 failed, 0 skipped
        wave 1 (wave) begins: 2 targets
        ");
        assert_eq!(lines(Some(&second), &second), "");
        assert_eq!(lines(Some(&second), &third), "paused");
        assert_eq!(lines(Some(&third), &second), "running");
        let again = Rollout { note: Some("wave 1 is done".to_owned()), ..third.clone() };
        assert_eq!(lines(Some(&third), &again), "paused: wave 1 is done");
        let event = serde_json::to_string(&between(Some(&first), &second)[0]).unwrap();
        assert_eq!(event, r#"{"event":"wave_ended","wave":0,"done":1,"failed":0,"skipped":0}"#);
    }
}
