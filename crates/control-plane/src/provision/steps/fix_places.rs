//! Fix places: counts anew how many tenants have a place on the server.

use async_trait::async_trait;

use super::place::recount_places;
use super::{Step, StepError};
use crate::provision::work::Work;
use crate::registry::change::Change;

pub(super) struct FixPlaces;

#[async_trait]
impl Step for FixPlaces {
    fn name(&self) -> &'static str {
        "fix_places"
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        Ok(recount_places(change, work.server_id()?).await?)
    }
}
