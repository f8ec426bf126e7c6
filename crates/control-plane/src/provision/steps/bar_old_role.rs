//! Bar old role: ends the sessions of the login role that is not in use any more, and lets it make no new ones.

use async_trait::async_trait;

use super::{Step, StepError};
use crate::engine::Slot;
use crate::provision::work::Work;

pub(super) struct BarOldRole;

#[async_trait]
impl Step for BarOldRole {
    fn name(&self) -> &'static str {
        "bar_old_role"
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let database = work.claimed().await?;
        let slot = database.row.slot.parse::<Slot>()?.other();
        database.engine.disable_role(&database.name, slot).await?;
        Ok(())
    }
}
