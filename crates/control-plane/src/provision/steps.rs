//! The steps of long actions: one file each, with what it does and how that is undone.
//!
//! Every step may be repeated and may be undone when it was half done or not begun: whoever ran it may have died at any
//! point. A step writes to the registry only in the change that it answers, in which it is marked as done.

mod activate;
mod await_nodes;
mod bar_old_role;
mod claim;
mod count_rows;
mod create_database;
mod disconnect;
mod drop_database;
mod fix_places;
mod fix_stock;
mod fix_strays;
mod fix_tenant;
mod forget;
mod migrate;
mod move_urls;
mod new_role;
mod new_url;
mod place;
mod roles;
mod seed;
mod stamp;
mod switch;

pub(crate) use move_urls::count_left;
pub(crate) use place::{emptiest, no_room, places};

use async_trait::async_trait;
use sea_orm::DbErr;
use service::problem::BoxError;
use uuid::Uuid;

use super::stock::StockError;
use super::work::Work;
use crate::doctor::Uncured;
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
pub(super) const DELETE: &[&dyn Step] =
    &[&disconnect::Disconnect, &count_rows::CountRows, &drop_database::DropDatabase, &forget::Forget];

/// The database's two login roles take turns: one is in use while the other gets a new password.
pub(super) const ROTATE: &[&dyn Step] =
    &[&new_url::NewUrl, &new_role::NewRole, &switch::Switch, &await_nodes::AwaitNodes, &bar_old_role::BarOldRole];

/// With the third, data planes are told.
pub(super) const ROTATE_UNTIL_TOLD: usize = 3;

/// Puts right what the doctor found of a tenant.
pub(super) const FIX_TENANT: &[&dyn Step] = &[&fix_tenant::FixTenant];

/// Puts right what the doctor found on a server: the strays last, of which one may have to stay.
pub(super) const FIX_SERVER: &[&dyn Step] = &[&fix_places::FixPlaces, &fix_stock::FixStock, &fix_strays::FixStrays];

/// Only the registry is changed.
pub(super) const MOVE: &[&dyn Step] = &[&move_urls::MoveUrls];

/// One step of an operation: what it does outside of the registry, and what it writes there in the change in which it is
/// marked as done.
#[async_trait]
pub(super) trait Step: Send + Sync {
    /// Its name, in the registry and in the API.
    fn name(&self) -> &'static str;

    /// Does it.
    async fn run(&self, _work: &Work) -> Result<(), StepError> {
        Ok(())
    }

    /// Writes what came of it. The change is the lease holder's alone.
    async fn record(&self, _work: &Work, _change: &mut Change) -> Result<(), StepError> {
        Ok(())
    }

    /// Whether it has nothing to do outside of the registry, as the change has it: it may share the commit of the step
    /// before it then.
    async fn joins(&self, _work: &Work, _change: &Change) -> Result<bool, StepError> {
        Ok(false)
    }

    /// Takes it back. A step whose effect goes with that of an earlier one has nothing of its own to take back.
    async fn undo(&self, _work: &Work) -> Result<(), StepError> {
        Ok(())
    }

    /// Writes that it was taken back.
    async fn record_undo(&self, _work: &Work, _change: &mut Change) -> Result<(), StepError> {
        Ok(())
    }
}

/// Why a step did not succeed. The text is public: it goes into the registry and to operators.
#[derive(Debug)]
pub(super) enum StepError {
    /// It may succeed when it is tried again.
    Unavailable { text: String, source: Option<BoxError> },
    /// It waits for somebody else, and nothing is wrong.
    Waiting { text: String },
    /// It will not succeed until somebody changes something.
    Refused { text: String, source: Option<BoxError> },
    /// The registry failed us.
    Registry(DbErr),
    /// The operation is another's now.
    Lost,
}

impl StepError {
    /// The work waits for these data planes to let go of what was before.
    pub(super) fn awaiting(behind: &[Uuid]) -> Self {
        let first = behind.first().map(ToString::to_string).unwrap_or_default();
        let text = format!(
            "data planes have not let go of what was before yet ({}, {first} among them): GET /v1/nodes shows which are \
             behind; DELETE /v1/nodes/{{id}} forgets one that is gone for good",
            behind.len()
        );
        Self::Waiting { text }
    }

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

impl From<Uncured> for StepError {
    fn from(error: Uncured) -> Self {
        match error {
            Uncured::Registry(error) => error.into(),
            Uncured::Server(error) => error.into(),
            Uncured::Left(text) => Self::refused(text),
        }
    }
}

impl From<StockError> for StepError {
    fn from(error: StockError) -> Self {
        match error {
            StockError::Registry(error) => error.into(),
            StockError::Engine(error) => error.into(),
            StockError::Silent => Self::unavailable(error.to_string()),
            StockError::Behind => Self::refused("the fleet's schema is newer than this control plane: upgrade it"),
        }
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
