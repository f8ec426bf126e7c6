//! Authorize: does the caller belong to the tenant that the request names?
//!
//! The routes of the principal's own tenants are held against the names. A tenant that the principal does not belong to is never looked
//! up, so that nothing differs for an outsider whether it exists or not.

use std::time::Duration;

use http::StatusCode;
use service::Problem;
use tenancy::route::Route;
use tenancy::{Product, Status};

use super::authenticate::{Authenticated, Own};
use super::identify::{Name, ambiguous};
use crate::plane::Plane;
use crate::routes::InUse;
use crate::session::Principal;

/// A caller who belongs to the tenant of the request, which is served.
pub(super) struct Authorized {
    pub(super) principal: Principal,
    pub(super) served: InUse,
}

pub(super) fn authorize(plane: &Plane, authenticated: Authenticated) -> Result<Authorized, Problem> {
    let Authenticated { names, principal, own } = authenticated;
    // The same for a tenant of others and for one that never was, and nothing for who is admitted.
    let notice = |own: &[InUse]| {
        let is_own = |name: &&Name| own.iter().any(|served| is_named(&served.route, name));
        let mut foreign = names.iter().filter(|name| !is_own(name)).map(Name::text).peekable();
        if foreign.peek().is_some() {
            plane.audit.cross_tenant(&principal, foreign);
        }
    };
    let served = match own {
        Own::One(served) => match matching(&served.route, &names) {
            // A request that names no tenant is for the principal's only one.
            Match::All => served,
            partly => {
                notice(std::slice::from_ref(&served));
                return Err(if partly == Match::Some { ambiguous() } else { not_found() });
            }
        },
        Own::Several(several) if names.is_empty() && !several.is_empty() => return Err(unnamed()),
        Own::Several(mut several) => {
            let is_any_named = several.iter().any(|served| matching(&served.route, &names) != Match::None);
            let Some(at) = several.iter().position(|served| matching(&served.route, &names) == Match::All) else {
                notice(&several);
                return Err(if is_any_named { ambiguous() } else { not_found() });
            };
            several.swap_remove(at)
        }
    };
    may_serve(plane, &principal, &served.route)?;
    Ok(Authorized { principal, served })
}

/// As [`may_be_served`], and a refusal is noticed.
pub(super) fn may_serve(plane: &Plane, principal: &Principal, route: &Route) -> Result<(), Problem> {
    may_be_served(&plane.product, route).inspect_err(|problem| {
        if problem.status() == StatusCode::FORBIDDEN {
            plane.audit.suspended(principal, route.tenant, route.status.as_str());
        }
    })
}

/// How many of a request's names are a tenant's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    All,
    Some,
    None,
}

fn matching(route: &Route, names: &[Name]) -> Match {
    match names.iter().filter(|name| is_named(route, name)).count() {
        matching if matching == names.len() => Match::All,
        0 => Match::None,
        _ => Match::Some,
    }
}

pub(super) fn is_named(route: &Route, name: &Name) -> bool {
    match name {
        Name::Label(label) => **label == *route.slug.as_str(),
        Name::Header(name) => **name == *route.slug.as_str() || **name == *route.tenant.to_string(),
        Name::Host(host) => route.hosts.iter().any(|known| **known == **host),
    }
}

/// Whether the tenant is served now: by its status, and by its database's schema.
pub(super) fn may_be_served(product: &Product, route: &Route) -> Result<(), Problem> {
    let refused = |kind, detail| Err(Problem::new(StatusCode::FORBIDDEN, kind, detail));
    match route.status {
        Status::Active => {}
        Status::Suspended => {
            return refused("tenant-suspended", "The tenant is suspended. Ask whoever runs the service to resume it.");
        }
        _ => {
            return refused(
                "tenant-deleting",
                "The tenant is being deleted. Ask whoever runs the service to restore it in time.",
            );
        }
    }
    if route.schema_version < product.schema_version {
        return Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "schema-behind",
            "The tenant's database is being brought up to date. Send the request again after the time in Retry-After.",
        )
        .with_retry_after(Duration::from_secs(5)));
    }
    Ok(())
}

/// The credential speaks for several tenants.
fn unnamed() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "tenant-unnamed",
        "The credential belongs to several tenants. Name one of them: by host, path or X-Tenant-ID.",
    )
}

/// For a tenant of others and for one that never was: nothing tells them apart.
pub(super) fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "tenant-not-found",
        "There is no such tenant for this credential. Name your own, or none.",
    )
}
