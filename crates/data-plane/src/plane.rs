//! What the steps of admission share: what is known of tenants, their limits and pools, what is noticed of callers, the product.

use std::sync::Arc;

use tenancy::Product;

use crate::admission::identify::Naming;
use crate::audit::Audit;
use crate::key_uses::KeyUsesToTell;
use crate::limits::Limits;
use crate::pools::Pools;
use crate::routes::Routes;
use crate::strangers::Strangers;
use crate::tokens::Tokens;

/// One running data plane; clones share it.
#[derive(Clone)]
pub(crate) struct Plane(Arc<Parts>);

/// The parts of a plane.
pub(crate) struct Parts {
    pub(crate) routes: Routes,
    pub(crate) pools: Pools,
    pub(crate) audit: Audit,
    pub(crate) limits: Limits,
    pub(crate) product: Arc<Product>,
    pub(crate) naming: Naming,
    pub(crate) tokens: Tokens,
    pub(crate) strangers: Strangers,
    pub(crate) key_uses: KeyUsesToTell,
}

impl Plane {
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for Plane {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
