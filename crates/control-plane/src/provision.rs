//! Provisioning: long actions on a tenant as operations of persisted steps, worked by any number of control planes.
//!
//! The rows are the truth: a wake-up, a lease or a process may be lost at any moment, and whoever comes next goes on from
//! what is written. No step begins before the one before it is written down, and no holder writes once its lease is
//! another's.

mod admin;
mod breakers;
#[cfg(test)]
mod faults;
mod held;
mod lease;
mod on;
mod pace;
mod prune;
mod queue;
mod runner;
mod schedule;
mod slots;
mod steps;
mod stock;
#[cfg(test)]
pub(crate) mod tests;
mod wake;
mod walk;
mod work;

use std::str::FromStr;

pub(crate) use admin::settle_admin;
pub(crate) use breakers::Breakers;
pub(crate) use held::{begun, begun_on, go_on, holds, in_the_way, is_held};
pub(crate) use on::On;
pub(crate) use pace::AT_ONCE;
pub(crate) use prune::prune;
pub(crate) use queue::{Order, cancel_delete, enqueue, force, open, open_in, rests, retry, unfinished, wait};
pub(crate) use runner::run;
pub(crate) use schedule::rotate_by_age;
pub(crate) use steps::{count_left, emptiest, no_room, places};
pub(crate) use stock::{Kept, MOST_KEPT, Scratch, StockError, count_ready, gaps, keep, try_way};
pub(crate) use wake::Wake;
pub(crate) use work::{password_in, url_subject};

use crate::registry::entities::operations;
use steps::Step;

/// What is done with a tenant, or on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Builds its database and makes it known to data planes. Fails by being undone.
    Create,
    /// Destroys its database and everything of it but a tombstone. There is no way back: it is tried until it is done.
    Delete,
    /// Gives its database another login role with a new password, and bars the old one. Once data planes are told of the
    /// new one there is no way back.
    Rotate,
    /// Puts right what the doctor found of a tenant or on a server. Nothing of it is taken back.
    Fix,
    /// Has the URLs of all databases on a server name the address that the server has now. It is tried until it is done.
    Move,
}

/// No operation is of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a kind of operation: use create, delete, rotate, fix or move")]
pub(crate) struct UnknownKind;

impl Kind {
    const ALL: [Self; 5] = [Self::Create, Self::Delete, Self::Rotate, Self::Fix, Self::Move];

    /// The word used in the API and in the registry.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Rotate => "rotate",
            Self::Fix => "fix",
            Self::Move => "move",
        }
    }

    /// Its steps, in their order. A fix is on a tenant or on a server, a move on a server.
    const fn steps(self, on: On) -> &'static [&'static dyn Step] {
        match (self, on) {
            (Self::Create, _) => steps::CREATE,
            (Self::Delete, _) => steps::DELETE,
            (Self::Rotate, _) => steps::ROTATE,
            (Self::Fix, On::Tenant(_)) => steps::FIX_TENANT,
            (Self::Fix, On::Server(_)) => steps::FIX_SERVER,
            (Self::Move, _) => steps::MOVE,
        }
    }

    /// How many of its steps are undone when one of them fails. A later one is tried until it succeeds.
    const fn can_be_undone(self) -> usize {
        match self {
            Self::Create => steps::CREATE.len(),
            Self::Delete | Self::Move => 0,
            Self::Rotate => steps::ROTATE_UNTIL_TOLD,
            Self::Fix => steps::FIX_SERVER.len(),
        }
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or(UnknownKind)
    }
}

/// Where an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has begun it.
    Pending,
    /// Some of its steps may be done.
    Running,
    /// It failed, and its steps are undone in reverse.
    Undoing,
    /// All of its steps are done.
    Done,
    /// It failed, and nothing of it is left.
    Failed,
    /// It was called off before it began.
    Cancelled,
}

/// Whether an operation ended as it was meant to.
pub(crate) fn is_done(operation: &operations::Model) -> bool {
    operation.state == State::Done.as_str()
}

/// Whether an operation can be in a state of this name.
pub(crate) fn is_state(name: &str) -> bool {
    State::ALL.iter().any(|state| state.as_str() == name)
}

impl State {
    const ALL: [Self; 6] = [Self::Pending, Self::Running, Self::Undoing, Self::Done, Self::Failed, Self::Cancelled];
    /// Nothing more happens by itself.
    const ENDS: [Self; 3] = [Self::Done, Self::Failed, Self::Cancelled];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Undoing => "undoing",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more happens by itself.
    fn has_ended(text: &str) -> bool {
        Self::ENDS.iter().any(|state| state.as_str() == text)
    }
}

/// Where a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepState {
    /// It may have been begun, and is not done.
    Pending,
    /// Its effect is there.
    Done,
    /// It was given up; some of its effect may be there.
    Failed,
    /// Its effect is gone.
    Undone,
}

impl StepState {
    const ALL: [Self; 4] = [Self::Pending, Self::Done, Self::Failed, Self::Undone];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Undone => "undone",
        }
    }

    fn of(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}
