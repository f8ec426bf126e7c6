//! Disconnect: waits until no data plane serves or dials the tenant. The deletion was news to all of them when it was asked
//! for; a data plane that is gone counts until it is forgotten or stale.

use async_trait::async_trait;

use super::{Step, StepError};
use crate::provision::work::Work;

pub(super) struct Disconnect;

#[async_trait]
impl Step for Disconnect {
    fn name(&self) -> &'static str {
        "disconnect"
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let behind = work.nodes_behind().await?;
        if behind.is_empty() { Ok(()) } else { Err(StepError::awaiting(&behind)) }
    }
}
