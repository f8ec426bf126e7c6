//! Stamp: writes in the database whose it is. It goes with the database.

use async_trait::async_trait;

use super::{Step, StepError};
use crate::provision::work::Work;
use crate::registry::change::Change;

pub(super) struct Stamp;

#[async_trait]
impl Step for Stamp {
    fn name(&self) -> &'static str {
        "stamp"
    }

    async fn run(&self, work: &Work) -> Result<Change, StepError> {
        let database = work.claimed().await?;
        database.engine.stamp(&database.name, work.tenant()).await?;
        work.change().await
    }
}
