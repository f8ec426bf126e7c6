//! Create database: makes the claimed database, from the server's template if there is one, unless it was ready. Undone, it
//! is dropped with all that later steps made in it.

use async_trait::async_trait;

use super::migrate::record_version;
use super::{Step, StepError};
use crate::engine::{Made, drop_unless_anothers};
use crate::provision::stock;
use crate::provision::work::Work;
use crate::registry::change::Change;

pub(super) struct CreateDatabase;

#[async_trait]
impl Step for CreateDatabase {
    fn name(&self) -> &'static str {
        "create_database"
    }

    async fn joins(&self, work: &Work, change: &Change) -> Result<bool, StepError> {
        Ok(work.claimed_row(change.db()).await?.is_warm)
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let database = work.claimed().await?;
        let version = if let Some((template, version)) = stock::ready_template(&work.plane, database.server.id).await? {
            match database.engine.copy_database(&template, &database.name).await? {
                Made::Anew => version,
                // The migrations find out what it has.
                Made::Before => 0,
            }
        } else {
            database.engine.create_database(&database.name).await?;
            0
        };
        work.note_schema_version(version);
        Ok(())
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        record_version(work, change).await
    }

    async fn undo(&self, work: &Work) -> Result<(), StepError> {
        work.leave().await;
        if let Some(database) = work.database().await? {
            drop_unless_anothers(database.engine.as_ref(), &database.name, Some(work.tenant_id())).await?;
        }
        Ok(())
    }
}
