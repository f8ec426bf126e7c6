//! Named limits that a tenant is held to.
//!
//! A plan only says how much; how it is enforced is the data plane's business.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The limits of one plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Its name, as tenants refer to it.
    pub name: String,
    /// Requests admitted in each window; none means that requests are not limited.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub requests: Option<NonZeroU32>,
    /// Length of the window, in seconds.
    #[schema(value_type = u32, minimum = 1)]
    pub window_seconds: NonZeroU32,
    /// Requests that may come at once; the window's whole amount when absent.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub burst: Option<NonZeroU32>,
    /// Requests of one client in each window, within the tenant's; none means that they are not limited apart.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub client_requests: Option<NonZeroU32>,
    /// Requests of one client that may come at once; the window's whole amount when absent.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub client_burst: Option<NonZeroU32>,
    /// Database connections that one data plane may hold for the tenant.
    #[schema(value_type = u32, minimum = 1)]
    pub connections: NonZeroU32,
    /// Requests that one data plane serves at once for the tenant.
    #[schema(value_type = u32, minimum = 1)]
    pub concurrency: NonZeroU32,
}

impl Plan {
    /// The plans that a new registry has.
    #[must_use]
    pub fn seeded() -> Vec<Self> {
        let plan = |name: &str, requests: Option<u32>, connections: u32, concurrency: u32| Self {
            name: name.to_owned(),
            requests: requests.and_then(NonZeroU32::new),
            window_seconds: NonZeroU32::new(3600).expect("an hour is not zero"),
            burst: None,
            client_requests: None,
            client_burst: None,
            connections: NonZeroU32::new(connections).unwrap_or(NonZeroU32::MIN),
            concurrency: NonZeroU32::new(concurrency).unwrap_or(NonZeroU32::MIN),
        };
        vec![
            plan("free", Some(100), 2, 8),
            plan("basic", Some(1_000), 4, 16),
            plan("premium", Some(10_000), 8, 64),
            plan("enterprise", Some(100_000), 16, 256),
            plan("unlimited", None, 16, 1_024),
        ]
    }

    /// Requests that may come at once, or none when requests are not limited.
    pub fn effective_burst(&self) -> Option<NonZeroU32> {
        self.requests.map(|requests| self.burst.unwrap_or(requests))
    }

    /// Requests of one client that may come at once, or none when clients are not limited apart.
    pub fn effective_client_burst(&self) -> Option<NonZeroU32> {
        self.client_requests.map(|requests| self.client_burst.unwrap_or(requests))
    }

    /// The plan as it holds for a tenant with limits of its own.
    #[must_use]
    pub fn with(self, own: &TenantLimits) -> Self {
        Self {
            requests: own.requests.or(self.requests),
            window_seconds: own.window_seconds.unwrap_or(self.window_seconds),
            burst: own.burst.or(self.burst),
            client_requests: own.client_requests.or(self.client_requests),
            client_burst: own.client_burst.or(self.client_burst),
            concurrency: own.concurrency.unwrap_or(self.concurrency),
            ..self
        }
    }
}

/// Limits of one tenant's own. Each that is given takes the place of its plan's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantLimits {
    /// Requests admitted in each window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    pub requests: Option<NonZeroU32>,
    /// Length of the window, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 31_536_000)]
    pub window_seconds: Option<NonZeroU32>,
    /// Requests that may come at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    pub burst: Option<NonZeroU32>,
    /// Requests of one client in each window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    pub client_requests: Option<NonZeroU32>,
    /// Requests of one client that may come at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1_000_000_000)]
    pub client_burst: Option<NonZeroU32>,
    /// Requests that one data plane serves at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 100_000)]
    pub concurrency: Option<NonZeroU32>,
}

impl TenantLimits {
    /// Whether the plan's hold alone.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeded_plans_are_the_contract() {
        let seen: Vec<_> = Plan::seeded()
            .into_iter()
            .map(|p| (p.name, p.requests.map(NonZeroU32::get), p.window_seconds.get()))
            .collect();
        assert_eq!(
            seen,
            [
                ("free".to_owned(), Some(100), 3600),
                ("basic".to_owned(), Some(1_000), 3600),
                ("premium".to_owned(), Some(10_000), 3600),
                ("enterprise".to_owned(), Some(100_000), 3600),
                ("unlimited".to_owned(), None, 3600),
            ]
        );
    }
}
