//! Fix strays: drops what is on the server, is known to no registry, and nobody misses.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Step, StepError};
use crate::doctor::Doctor;
use crate::provision::work::Work;

/// After this no other is begun with in one attempt.
const BEGINNING: Duration = Duration::from_secs(30);

pub(super) struct FixStrays;

#[async_trait]
impl Step for FixStrays {
    fn name(&self) -> &'static str {
        "fix_strays"
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let server = work.own_server().await?;
        let late = Instant::now() + BEGINNING;
        if Box::pin(Doctor::new(work.plane.clone()).cure_strays(&server, late)).await? {
            return Ok(());
        }
        Err(StepError::Waiting { text: "there are more databases and login roles to be dropped".to_owned() })
    }
}
