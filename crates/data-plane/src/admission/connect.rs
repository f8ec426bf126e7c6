//! Connect: the tenant's pool, and with it the session. The last step, so that nobody opens a database in vain.

use std::sync::Arc;

use service::Problem;

use super::limit::Limited;
use crate::plane::Plane;
use crate::pools::REFUSED;
use crate::session::TenantSession;

pub(super) async fn connect(plane: &Plane, limited: Limited) -> Result<TenantSession, Problem> {
    let Limited { principal, served, permit } = limited;
    let pool = plane.pools.of(&served).await.inspect_err(|problem| {
        if problem.kind() == REFUSED {
            plane.audit.database_refused(served.route.tenant, served.route.generation, problem.source_chain());
        }
    })?;
    Ok(TenantSession::new(served, principal, pool, permit, Arc::clone(&plane.product)))
}
