//! Who calls.

use std::sync::Arc;

use tenancy::TenantId;
use tenancy::route::RouteKey;

use crate::kept::Kept;
use crate::limits::Limiter;

/// Who calls: subject, scopes, and the tenants that it belongs to. Clones are the same.
#[derive(Clone, Debug)]
pub struct Principal(Arc<Caller>);

#[derive(Debug)]
struct Caller {
    subject: String,
    scopes: Vec<String>,
    tenants: Box<[TenantId]>,
    meter: Kept<Limiter>,
}

impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        let [one, other] = [self, other].map(|it| (&it.0.subject, &it.0.scopes, &it.0.tenants));
        one == other
    }
}

impl Eq for Principal {}

impl Principal {
    pub(crate) fn new(subject: String, scopes: Vec<String>, tenants: impl Into<Box<[TenantId]>>) -> Self {
        Self(Arc::new(Caller { subject, scopes, tenants: tenants.into(), meter: Kept::default() }))
    }

    pub(crate) fn of_key(key: &RouteKey, tenant: TenantId) -> Self {
        Self::new(format!("key:{}", key.id), key.scopes.clone(), [tenant])
    }

    /// `key:<id>` for an API key, `jwt:<issuer>|<subject>` for a token, `public` for anybody on a public route,
    /// `job:<purpose>` for work of the product's own.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// What it may do.
    pub fn scopes(&self) -> &[String] {
        &self.0.scopes
    }

    /// Its meter at the tenant that it came to last.
    pub(crate) fn meter(&self) -> &Kept<Limiter> {
        &self.0.meter
    }

    /// The tenants that it belongs to: mostly one, at most 64.
    pub fn tenants(&self) -> &[TenantId] {
        &self.0.tenants
    }
}
