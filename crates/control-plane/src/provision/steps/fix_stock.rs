//! Fix stock: what is gone of the server's template and ready databases is made anew, and their login roles' limits are set.

use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Step, StepError};
use crate::provision::stock::restock;
use crate::provision::work::Work;

/// After this no other database is begun with in one attempt.
const BEGINNING: Duration = Duration::from_secs(30);

pub(super) struct FixStock;

#[async_trait]
impl Step for FixStock {
    fn name(&self) -> &'static str {
        "fix_stock"
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let server = work.own_server().await?;
        if Box::pin(restock(&work.plane, &server, Instant::now() + BEGINNING)).await? {
            return Ok(());
        }
        Err(StepError::Waiting { text: "there are more databases to be made ready, by us or by another".to_owned() })
    }
}
