//! Create database: makes the claimed database, empty. Undone, it is dropped with all that later steps made in it.

use async_trait::async_trait;

use super::{Step, StepError};
use crate::provision::work::Work;
use crate::registry::change::Change;

pub(super) struct CreateDatabase;

#[async_trait]
impl Step for CreateDatabase {
    fn name(&self) -> &'static str {
        "create_database"
    }

    async fn run(&self, work: &Work) -> Result<Change, StepError> {
        let database = work.claimed().await?;
        database.engine.create_database(&database.name).await?;
        work.change().await
    }

    async fn undo(&self, work: &Work) -> Result<Change, StepError> {
        if let Some(database) = work.database().await? {
            database.engine.drop_database(&database.name).await?;
        }
        work.change().await
    }
}
