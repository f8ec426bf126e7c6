//! Tenants' URLs as connections are dialled with them, and those that must not be dialled any more.

use std::sync::Arc;

use tenancy::TenantId;
use tenancy::route::Route;

use crate::uses::Uses;

/// What a tenant's connections are dialled under. Those of another are not used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Dial {
    pub(crate) tenant: TenantId,
    pub(crate) generation: u64,
    /// How often an operator had the connections replaced.
    reconnects: u64,
}

impl Dial {
    pub(crate) const fn of(route: &Route) -> Self {
        Self { tenant: route.tenant, generation: route.generation, reconnects: route.reconnects }
    }
}

/// A URL that must not be dialled any more.
#[derive(Clone, Debug)]
pub(crate) struct Url {
    pub(crate) dial: Dial,
    pub(crate) dialled: Arc<Uses>,
    /// Only the connections are others: the successor has the same URL.
    pub(crate) is_dialled_again: bool,
}
