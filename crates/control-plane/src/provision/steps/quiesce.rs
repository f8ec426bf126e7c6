//! Quiesce: wait until every data plane has heard that the tenant is refused, so that none still dials its database.

use async_trait::async_trait;
use tenancy::route::Revision;

use super::{Step, StepError, Work};
use crate::registry::change::Change;

pub(super) struct Quiesce;

#[async_trait]
impl Step for Quiesce {
    fn name(&self) -> &'static str {
        "quiesce"
    }

    async fn run(&self, work: &Work<'_>) -> Result<Option<Change>, StepError> {
        let registry = &work.plane.registry;
        let revision = Revision(work.tenant().await?.revision.unsigned_abs());
        let alive_since = registry.now() - work.plane.stale_after;
        if registry.is_applied(revision, alive_since).await? {
            return Ok(None);
        }
        Err(StepError::not_yet(
            "some data plane has not applied the deletion; GET /v1/nodes shows which, and a dead one can be forgotten",
        ))
    }
}
