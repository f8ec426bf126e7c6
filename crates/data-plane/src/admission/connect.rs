//! Connect: the tenant's pool, and with it the session. The last step, so that nobody opens a database in vain.

use std::sync::Arc;

use service::Problem;
use tenancy::Product;

use super::limit::Limited;
use crate::pools::Pools;
use crate::session::TenantSession;

pub(super) async fn connect(pools: &Pools, product: &Arc<Product>, limited: Limited) -> Result<TenantSession, Problem> {
    let Limited { principal, served, permit } = limited;
    let pool = pools.of(&served).await?;
    Ok(TenantSession::new(served, principal, pool, permit, Arc::clone(product)))
}
