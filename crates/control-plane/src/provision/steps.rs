//! The steps of long actions: one file each, with what it does and how that is undone.
//!
//! Every step may be repeated and may be undone when it was half done or not begun: whoever ran it may have died at any
//! point. A step writes to the registry only in the change that it answers, in which it is marked as done.

mod activate;
mod claim;
mod create_database;
mod disconnect;
mod drop_database;
mod forget;
mod migrate;
mod place;
mod roles;
mod seed;
mod stamp;

use async_trait::async_trait;
use sea_orm::DbErr;
use service::problem::BoxError;

use super::work::Work;
use crate::engine::EngineError;
use crate::registry::change::Change;

/// Only the last of them makes the tenant visible to data planes.
pub(super) const CREATE: &[&dyn Step] = &[
    &place::Place,
    &claim::Claim,
    &create_database::CreateDatabase,
    &roles::Roles,
    &migrate::Migrate,
    &stamp::Stamp,
    &seed::Seed,
    &activate::Activate,
];

/// They run when the grace period has ended.
pub(super) const DELETE: &[&dyn Step] = &[&disconnect::Disconnect, &drop_database::DropDatabase, &forget::Forget];

/// One step of an operation.
#[async_trait]
pub(super) trait Step: Send + Sync {
    /// Its name, in the registry and in the API.
    fn name(&self) -> &'static str;

    /// Does it; answers the change in which it is written down, with the step's own writes in it.
    async fn run(&self, work: &Work) -> Result<Change, StepError>;

    /// Takes it back, likewise. A step whose effect goes with that of an earlier one has nothing of its own to take back.
    async fn undo(&self, work: &Work) -> Result<Change, StepError> {
        work.change().await
    }
}

/// Why a step did not succeed. The text is public: it goes into the registry and to operators.
#[derive(Debug)]
pub(super) enum StepError {
    /// It may succeed when it is tried again.
    Unavailable { text: String, source: Option<BoxError> },
    /// It will not succeed until somebody changes something.
    Refused { text: String, source: Option<BoxError> },
    /// The registry failed us.
    Registry(DbErr),
    /// The operation is another's now.
    Lost,
}

impl StepError {
    pub(super) fn refused(text: impl Into<String>) -> Self {
        Self::Refused { text: text.into(), source: None }
    }

    pub(super) fn unavailable(text: impl Into<String>) -> Self {
        Self::Unavailable { text: text.into(), source: None }
    }
}

impl From<DbErr> for StepError {
    fn from(error: DbErr) -> Self {
        Self::Registry(error)
    }
}

impl From<EngineError> for StepError {
    fn from(error: EngineError) -> Self {
        let text = error.to_string();
        if error.is_unavailable() {
            Self::Unavailable { text, source: Some(error.into()) }
        } else {
            Self::Refused { text, source: Some(error.into()) }
        }
    }
}
