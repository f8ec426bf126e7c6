//! Authorize: does the caller belong to the tenant that the request names?
//!
//! The principal's own route is held against the names. A tenant that the principal does not belong to is never looked
//! up, so that nothing differs for an outsider whether it exists or not.

use std::time::Duration;

use http::StatusCode;
use service::Problem;
use tenancy::route::Route;
use tenancy::{Product, Status};

use super::authenticate::Authenticated;
use super::identify::{Name, ambiguous};
use crate::routes::InUse;
use crate::session::Principal;

/// A caller who belongs to the tenant of the request, which is served.
pub(super) struct Authorized {
    pub(super) principal: Principal,
    pub(super) served: InUse,
}

pub(super) fn authorize(product: &Product, authenticated: Authenticated) -> Result<Authorized, Problem> {
    let Authenticated { names, principal, served } = authenticated;
    let route = &served.route;
    let matching = names.iter().filter(|name| is_named(route, name)).count();
    match matching {
        // A request that names no tenant is for the principal's only one.
        _ if matching == names.len() => {}
        0 => return Err(not_found()),
        _ => return Err(ambiguous()),
    }
    may_be_served(route)?;
    if route.schema_version < product.schema_version {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "schema-behind",
            "The tenant's database is being brought up to date. Send the request again after the time in Retry-After.",
        )
        .with_retry_after(Duration::from_secs(5)));
    }
    Ok(Authorized { principal, served })
}

fn is_named(route: &Route, name: &Name) -> bool {
    match name {
        Name::Label(label) => **label == *route.slug.as_str(),
        Name::Header(name) => **name == *route.slug.as_str() || **name == *route.tenant.to_string(),
        Name::Host(host) => route.hosts.iter().any(|known| **known == **host),
    }
}

fn may_be_served(route: &Route) -> Result<(), Problem> {
    let (kind, detail) = match route.status {
        Status::Active => return Ok(()),
        Status::Suspended => {
            ("tenant-suspended", "The tenant is suspended. Ask whoever runs the service to resume it.")
        }
        _ => ("tenant-deleting", "The tenant is being deleted. Ask whoever runs the service to restore it in time."),
    };
    Err(Problem::new(StatusCode::FORBIDDEN, kind, detail))
}

/// For a tenant of others and for one that never was: nothing tells them apart.
fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "tenant-not-found",
        "There is no such tenant for this credential. Name your own, or none.",
    )
}
