//! Limit: within the plan? A tenant has so many requests in each window on all nodes together, each of its clients so many of
//! them, and so many at once on each node; it harms no other by asking for more.

use std::net::IpAddr;
use std::time::Duration;

use http::StatusCode;
use service::Problem;

use super::authorize::Authorized;
use crate::limits::Allowance;
use crate::plane::Plane;
use crate::routes::InUse;
use crate::session::Principal;
use crate::uses::Permit;

/// A caller within its limits; the permit is given back when its session and its answer have ended.
pub(super) struct Limited {
    pub(super) principal: Principal,
    pub(super) served: InUse,
    pub(super) permit: Permit,
}

/// Takes the permits of one request. What is left is noted in `allowance`, whether it may pass or not.
pub(super) async fn limit(
    plane: &Plane,
    authorized: Authorized,
    client: Client,
    allowance: &mut Allowance,
) -> Result<Limited, Problem> {
    let Authorized { principal, served } = authorized;
    // First, for what is refused here uses up nothing.
    let Some(permit) = served.permit() else {
        plane.audit.limit_hit(served.route.tenant, &principal, "requests at work at once");
        return Err(Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-at-once",
            "The tenant has as many requests at work as its plan allows. Send fewer at once.",
        )
        .with_retry_after(Duration::from_secs(1)));
    };
    let (tenant, plan) = (served.route.tenant, &served.route.plan);
    let taken = match client {
        Client::Principal => {
            let kept = [&served.meter, principal.meter()];
            plane.limits.take_by(tenant, plan, principal.subject(), Some(kept)).await
        }
        Client::Address(address) => plane.limits.take(tenant, plan, &named(address)).await,
    };
    *allowance = taken.unwrap_or_else(|allowance| allowance);
    if taken.is_ok() {
        return Ok(Limited { principal, served, permit });
    }
    let limit =
        if allowance.is_held_by_client() { "requests of one client in a window" } else { "requests in a window" };
    plane.audit.limit_hit(tenant, &principal, limit);
    Err(refused(allowance))
}

/// Who counts as one client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Client {
    /// Whoever calls.
    Principal,
    /// Nobody proved who calls: it is where the call comes from.
    Address(Option<IpAddr>),
}

/// One household has a whole /64 of IPv6 addresses, and is one client.
fn named(address: Option<IpAddr>) -> String {
    match address.map(|address| address.to_canonical()) {
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("address:{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        Some(IpAddr::V4(address)) => format!("address:{address}"),
        None => "address".to_owned(),
    }
}

fn refused(allowance: &Allowance) -> Problem {
    let wait = Duration::from_secs(allowance.retry_after());
    let (kind, whose) = if allowance.is_held_by_client() {
        ("client-rate-limited", "This client has sent as many requests as its tenant's plan allows one client")
    } else {
        ("rate-limited", "The tenant has sent as many requests as its plan allows")
    };
    let detail = format!("{whose}. Send the request again after the time in Retry-After, {} s.", wait.as_secs());
    Problem::new(StatusCode::TOO_MANY_REQUESTS, kind, detail).with_retry_after(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_household_is_one_client_whatever_its_addresses() {
        let of = |text: &str| named(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2:3::4"), of("2001:db8:1:3:3::4"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
        assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    }
}
