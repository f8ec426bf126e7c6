//! Drop database: destroys the tenant's data. There is no way back, so there is nothing to undo it by.

use async_trait::async_trait;

use super::{Step, StepError};
use crate::engine::drop_unless_anothers;
use crate::provision::work::Work;

pub(super) struct DropDatabase;

#[async_trait]
impl Step for DropDatabase {
    fn name(&self) -> &'static str {
        "drop_database"
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        // A tenant whose creation failed has none.
        if let Some(database) = work.database().await? {
            // A row that names another tenant's database is a mistake that must not cost that tenant its data.
            drop_unless_anothers(database.engine.as_ref(), &database.name, Some(work.tenant_id())).await?;
        }
        Ok(())
    }
}
