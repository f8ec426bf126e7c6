//! A rollout, as far as we show it.

use serde::Deserialize;

use crate::output::moment;
use crate::table::{Table, or_nothing};

/// A page of rollouts.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) items: Vec<Rollout>,
}

/// A fleet migration.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Rollout {
    pub(super) id: String,
    pub(super) version: u32,
    #[serde(default)]
    pub(super) down: bool,
    pub(super) state: String,
    pub(super) note: Option<String>,
    #[serde(default)]
    pub(super) held: bool,
    pub(super) awaits: Option<String>,
    #[serde(default)]
    pub(super) wave: usize,
    pub(super) rest_until: Option<String>,
    #[serde(default)]
    pub(super) already: u64,
    #[serde(default)]
    pub(super) counts: Counts,
    #[serde(default)]
    pub(super) waves: Vec<Wave>,
    #[serde(default)]
    pub(super) requested_by: String,
    #[serde(default)]
    pub(super) created_at: String,
    pub(super) finished_at: Option<String>,
}

/// Targets by their state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Counts {
    pub(super) pending: u64,
    pub(super) running: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

/// One wave.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Wave {
    pub(super) kind: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) counts: Counts,
    pub(super) opened_at: Option<String>,
    pub(super) ended_at: Option<String>,
}

/// A target that failed.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Target {
    pub(super) tenant: String,
    pub(super) slug: Option<String>,
    pub(super) error: Option<String>,
}

impl Target {
    pub(super) fn name(&self) -> &str {
        self.slug.as_deref().unwrap_or(&self.tenant)
    }
}

impl Counts {
    pub(super) const fn all(self) -> u64 {
        self.pending + self.running + self.done + self.failed + self.skipped
    }

    /// Those that have ended, however that was.
    pub(super) const fn ended(self) -> u64 {
        self.done + self.failed + self.skipped
    }
}

impl Rollout {
    /// Nothing more happens, unless somebody retries it.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "done" | "aborted") || self.is_spent() && self.counts.running == 0
    }

    /// Its canaries' requests fare badly: it waits for somebody, who was not asked to be there.
    pub(super) fn is_held_by_its_canaries(&self) -> bool {
        self.state == "paused" && self.awaits.as_deref() == Some("health")
    }

    /// Its error budget is spent.
    pub(super) fn is_spent(&self) -> bool {
        self.state == "failed"
    }

    /// Every tenant that it is for has the version.
    pub(super) fn is_whole(&self) -> bool {
        self.state == "done" && self.counts.failed == 0
    }

    /// Everything of it, a line each.
    pub(super) fn facts(&self) -> Table {
        let mut table = Table::facts();
        table.row(["rollout", &self.id]);
        table.row(["to version", &format!("{}{}", self.version, if self.down { ", down" } else { "" })]);
        let held = if self.held { ", held: it was ordered before the registry was restored" } else { "" };
        table.row(["state", &format!("{}{held}", self.state)]);
        if let Some(note) = &self.note {
            table.row(["note", note]);
        }
        let Counts { pending, running, done, failed, skipped } = self.counts;
        let counts = format!("{done} done, {failed} failed, {skipped} skipped, {running} running, {pending} pending");
        table.row(["targets", &format!("{} ({counts})", self.counts.all())]);
        table.row(["had it already", &self.already.to_string()]);
        if let Some(until) = &self.rest_until {
            table.row(["next wave", &moment(until)]);
        }
        table.row(["ordered", &format!("{} by {}", moment(&self.created_at), self.requested_by)]);
        table.row(["ended", or_nothing(self.finished_at.as_deref().map(moment).as_deref())]);
        table
    }

    /// Its waves.
    pub(super) fn wave_table(&self) -> Table {
        let mut table = Table::of(["WAVE", "KIND", "TARGETS", "DONE", "FAILED", "SKIPPED", "OPENED", "ENDED"]);
        for (number, wave) in self.waves.iter().enumerate() {
            table.row([
                &number.to_string(),
                &wave.kind,
                &wave.size.to_string(),
                &wave.counts.done.to_string(),
                &wave.counts.failed.to_string(),
                &wave.counts.skipped.to_string(),
                or_nothing(wave.opened_at.as_deref().map(moment).as_deref()),
                or_nothing(wave.ended_at.as_deref().map(moment).as_deref()),
            ]);
        }
        table
    }
}
