//! How a rollout is done: how much at once, how patiently, and when it stops by itself.

use std::time::Duration;

use sea_orm::DbErr;
use serde::{Deserialize, Serialize};
use service::Problem;
use utoipa::ToSchema;

/// Targets that a rollout works on at once, at most.
const MOST_AT_ONCE: u32 = 256;
/// Waves that may be asked for.
const MOST_WAVES: usize = 16;
/// Tenants that may be named as canaries.
const MOST_CANARIES: usize = 100;
/// Canaries that can be watched.
const MOST_WATCHED: u32 = 100;
const DAY: u32 = 86_400;

/// How many targets may fail: the smaller of both, where both are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    /// This many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) targets: Option<u32>,
    /// This share of them, in percent, rounded down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) percent: Option<f64>,
}

/// Who goes first: so many, the oldest first, or these tenants, by slug or id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Canary {
    /// So many tenants, the oldest first; 0 for none.
    Number(u32),
    /// These, by slug or id.
    Tenants(Vec<String>),
}

/// How the canaries have to fare before the next wave begins. Nothing is looked at where neither a time nor a number is told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Health {
    /// How long they are watched once they have the version, in seconds, at least.
    pub(crate) seconds: u32,
    /// How many requests they have to have had in all. An hour after its time the rollout is held if there were fewer.
    pub(crate) requests: u32,
    /// The share of those that may be answered with a 5xx, in percent; above it the rollout is held until its `resume`.
    pub(crate) max_error_percent: f64,
}

impl Default for Health {
    fn default() -> Self {
        Self { seconds: 0, requests: 0, max_error_percent: 1.0 }
    }
}

impl Health {
    /// Whether anything is looked at.
    pub(super) const fn is_watched(&self) -> bool {
        self.seconds > 0 || self.requests > 0
    }
}

/// How it is done. What is not told is as `GET /v1/rollouts/{id}` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    /// Who goes first. No failure of theirs is borne, whatever the budget is.
    pub(crate) canary: Canary,
    /// The share of all targets that is done at the end of each wave after the canaries, in percent; the last wave has the
    /// rest.
    pub(crate) waves: Vec<f64>,
    /// Targets that are worked on at once, by all control planes together: 1 to 256.
    pub(crate) concurrency: u32,
    /// As `concurrency`, on one server: 1 to 256, and no more than the connections that are reserved for control planes there leave
    /// to rollouts.
    pub(crate) per_server: u32,
    /// How many targets may fail in all.
    pub(crate) budget: Budget,
    /// How many targets may fail in one wave.
    pub(crate) wave_budget: Budget,
    /// The pause between two waves, in seconds.
    pub(crate) rest_seconds: u32,
    /// How the canaries have to fare.
    pub(crate) health: Health,
    /// Whether each next wave waits for a `resume`.
    pub(crate) confirm: bool,
    /// How long a statement waits for a lock, in milliseconds. No query of a tenant waits behind it for longer.
    pub(crate) lock_timeout_ms: u32,
    /// How long a statement may take, in seconds.
    pub(crate) statement_timeout_seconds: u32,
    /// How long one attempt at a target may take, in seconds.
    pub(crate) target_timeout_seconds: u32,
    /// How often a target is tried that somebody else was in the way of.
    pub(crate) attempts: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            canary: Canary::Number(1),
            waves: vec![1.0, 10.0, 50.0],
            concurrency: 16,
            per_server: 8,
            budget: Budget { targets: None, percent: Some(1.0) },
            wave_budget: Budget::default(),
            rest_seconds: 0,
            health: Health::default(),
            confirm: false,
            lock_timeout_ms: 500,
            statement_timeout_seconds: 600,
            target_timeout_seconds: 1_800,
            attempts: 8,
        }
    }
}

impl Settings {
    /// As they were kept.
    pub(super) fn read(kept: serde_json::Value) -> Result<Self, DbErr> {
        serde_json::from_value(kept)
            .map_err(|error| DbErr::Custom(format!("a rollout's settings are damaged: {error}")))
    }

    /// Refuses what makes no sense, by its field.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let within = |field: &str, value: u32, least: u32, most: u32| {
            let detail =
                || Problem::invalid_field(format!("settings.{field}"), format!("must be from {least} to {most}"));
            if (least..=most).contains(&value) { Ok(()) } else { Err(detail()) }
        };
        within("concurrency", self.concurrency, 1, MOST_AT_ONCE)?;
        within("per_server", self.per_server, 1, MOST_AT_ONCE)?;
        within("rest_seconds", self.rest_seconds, 0, 7 * DAY)?;
        within("health.seconds", self.health.seconds, 0, 7 * DAY)?;
        within("health.requests", self.health.requests, 0, 1_000_000)?;
        within("lock_timeout_ms", self.lock_timeout_ms, 10, 60_000)?;
        within("statement_timeout_seconds", self.statement_timeout_seconds, 1, DAY)?;
        within("target_timeout_seconds", self.target_timeout_seconds, 1, DAY)?;
        within("attempts", self.attempts, 1, 100)?;
        let percents = [
            ("budget.percent", self.budget.percent),
            ("wave_budget.percent", self.wave_budget.percent),
            ("health.max_error_percent", Some(self.health.max_error_percent)),
        ];
        let waves = self.waves.iter().map(|share| ("waves", Some(*share)));
        for (field, percent) in percents.into_iter().chain(waves) {
            if percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent)) {
                return Err(Problem::invalid_field(format!("settings.{field}"), "must be from 0 to 100"));
            }
        }
        if self.waves.len() > MOST_WAVES {
            return Err(Problem::invalid_field("settings.waves", format!("must be {MOST_WAVES} at most")));
        }
        if !self.waves.is_sorted() {
            return Err(Problem::invalid_field("settings.waves", "must rise from one to the next"));
        }
        if matches!(&self.canary, Canary::Tenants(named) if named.is_empty() || named.len() > MOST_CANARIES) {
            let detail = format!("must name 1 to {MOST_CANARIES} tenants, or be a number");
            return Err(Problem::invalid_field("settings.canary", detail));
        }
        let is_watchable = matches!(&self.canary, Canary::Tenants(_) | Canary::Number(1..=MOST_WATCHED));
        if self.health.is_watched() && !is_watchable {
            let detail = format!("must be 1 to {MOST_WATCHED} where `health` has them watched");
            return Err(Problem::invalid_field("settings.canary", detail));
        }
        Ok(())
    }

    pub(super) fn lock_timeout(&self) -> Duration {
        Duration::from_millis(self.lock_timeout_ms.into())
    }

    pub(super) fn statement_timeout(&self) -> Duration {
        Duration::from_secs(self.statement_timeout_seconds.into())
    }

    pub(super) fn target_timeout(&self) -> Duration {
        Duration::from_secs(self.target_timeout_seconds.into())
    }
}
