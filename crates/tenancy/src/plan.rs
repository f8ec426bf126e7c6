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
