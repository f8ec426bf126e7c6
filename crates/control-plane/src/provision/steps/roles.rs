//! Roles: makes the login role that data planes enter the database by. It goes with the database. One that was ready has it.

use async_trait::async_trait;
use futures_util::try_join;

use super::{Step, StepError};
use crate::engine::Slot;
use crate::provision::work::Work;
use crate::registry::change::Change;

pub(super) struct Roles;

#[async_trait]
impl Step for Roles {
    fn name(&self) -> &'static str {
        "roles"
    }

    async fn joins(&self, work: &Work, change: &Change) -> Result<bool, StepError> {
        Ok(work.claimed_row(change.db()).await?.is_warm)
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let database = work.claimed().await?;
        let password = work.password(&database.row)?;
        // Data planes keep a tenant within its plan, and a plan may change. The role's own limit is the last resort: no
        // tenant takes more than all of its server's budget.
        let connections = database.server.connection_budget.unsigned_abs();
        let made = async { Ok(database.engine.create_role(&database.name, Slot::A, &password, connections).await?) };
        // The steps after it work in the database. To enter it takes the server a while, and changes nothing.
        try_join!(made, work.entered_of(&database))?;
        Ok(())
    }
}
