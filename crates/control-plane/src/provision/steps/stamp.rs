//! Stamp: writes in the database whose it is. It goes with the database.

use async_trait::async_trait;

use super::{Step, StepError};
use crate::provision::work::Work;

pub(super) struct Stamp;

#[async_trait]
impl Step for Stamp {
    fn name(&self) -> &'static str {
        "stamp"
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        work.entered().await?.stamp(work.tenant()).await?;
        Ok(())
    }
}
