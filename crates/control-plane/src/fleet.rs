//! Fleet migrations: a rollout brings the databases of many tenants to a schema version, wave by wave.
//!
//! The rows are the truth, as for operations: any number of control planes share one rollout, whoever dies leaves its targets to
//! the others, and a holder that was frozen changes nothing. A look at the rows every second finds what no wake-up told.

mod budget;
mod conduct;
mod health;
mod held;
mod lint;
mod order;
mod record;
mod runner;
mod select;
mod settings;
mod steer;
mod take;
mod target;
mod tell;
#[cfg(test)]
mod tests;
mod told;
mod verify;
mod waves;

pub(crate) use health::{canaries, count};
pub(crate) use lint::rehearse;
pub(crate) use order::{Order, order, plan};
pub(crate) use runner::run;
pub(crate) use select::{Selection, statuses};
pub(crate) use settings::Settings;
pub(crate) use steer::{abort, not_found, pause, resume, retry};
pub(crate) use told::shortened;
pub(crate) use verify::{Checked, Extent, From, ON_SERVER as VERIFIED_ON_SERVER, Schemas, Verified, verify};

/// Where a rollout is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its targets are taken, one wave after the other.
    Running,
    /// Nothing new begins until somebody says so.
    Paused,
    /// More targets failed than it may bear. Nothing new begins.
    Failed,
    /// It was given up. What had not begun is skipped.
    Aborted,
    /// Each of its targets has ended.
    Done,
}

impl State {
    const ALL: [Self; 5] = [Self::Running, Self::Paused, Self::Failed, Self::Aborted, Self::Done];

    /// The word used in the API and in the registry.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Done => "done",
        }
    }

    pub(crate) fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Where a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TargetState {
    /// Its turn has not come, or comes again.
    Pending,
    /// Somebody is at work on it.
    Running,
    /// Its database has the version.
    Done,
    /// Its database does not have the version, and will not get it by another attempt.
    Failed,
    /// It was not begun: the tenant is gone, or the rollout was given up.
    Skipped,
}

impl TargetState {
    pub(crate) const ALL: [Self; 5] = [Self::Pending, Self::Running, Self::Done, Self::Failed, Self::Skipped];
    /// It has not ended.
    pub(crate) const OPEN: [Self; 2] = [Self::Pending, Self::Running];

    /// The word used in the API and in the registry.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    pub(crate) fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A schema version as the registry keeps it.
const fn stored(version: u32) -> i32 {
    if version > i32::MAX as u32 { i32::MAX } else { version.cast_signed() }
}
