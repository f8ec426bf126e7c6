//! Limit: within the plan? A tenant has so many requests at once on a node, and harms no other by asking for more.

use std::time::Duration;

use http::StatusCode;
use service::Problem;
use tokio::sync::OwnedSemaphorePermit;

use super::authorize::Authorized;
use crate::audit::Audit;
use crate::routes::InUse;
use crate::session::Principal;

/// A caller within its limits; the permit is given back when its session ends.
pub(super) struct Limited {
    pub(super) principal: Principal,
    pub(super) served: InUse,
    pub(super) permit: OwnedSemaphorePermit,
}

pub(super) fn limit(audit: &Audit, authorized: Authorized) -> Result<Limited, Problem> {
    let Authorized { principal, served } = authorized;
    if let Some(permit) = served.permit() {
        return Ok(Limited { principal, served, permit });
    }
    audit.limit_hit(served.route.tenant, &principal, "requests at work at once");
    Err(Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too-many-at-once",
        "The tenant has as many requests at work as its plan allows. Send fewer at once.",
    )
    .with_retry_after(Duration::from_secs(1)))
}
