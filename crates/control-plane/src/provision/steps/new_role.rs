//! New role: gives the login role that is not in use its new password. Undone, it is barred again.

use async_trait::async_trait;

use super::{Step, StepError};
use crate::engine::Slot;
use crate::provision::work::Work;

pub(super) struct NewRole;

#[async_trait]
impl Step for NewRole {
    fn name(&self) -> &'static str {
        "new_role"
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let database = work.claimed().await?;
        let slot = database.row.slot.parse::<Slot>()?.other();
        let password = work.next_password(&database.row)?;
        let connections = database.server.connection_budget.unsigned_abs();
        database.engine.create_role(&database.name, slot, &password, connections).await?;
        Ok(())
    }

    async fn undo(&self, work: &Work) -> Result<(), StepError> {
        // Of a tenant that was deleted meanwhile there is no role left.
        if let Some(database) = work.database().await? {
            let slot = database.row.slot.parse::<Slot>()?.other();
            database.engine.disable_role(&database.name, slot).await?;
        }
        Ok(())
    }
}
