//! The walk to a public route: the tenant is resolved by the name in the request, for anybody.
//!
//! It tells that a tenant exists, which is why a product opens such a route on purpose. Of one that is not served it tells
//! nothing: to outsiders it is as if it never was.

use axum::extract::Request;
use service::Problem;
use service::telemetry::RequestContext;
use tenancy::{Status, TenantId};

use super::authorize::{Authorized, is_named, may_be_served, not_found};
use super::identify::Identified;
use super::limit::Client;
use super::{connect, limit};
use crate::limits::Allowance;
use crate::plane::Plane;
use crate::session::{Principal, PublicSession};
use crate::uses::Permit;

pub(super) async fn admit(
    plane: &Plane,
    mut request: Request,
    allowance: &mut Allowance,
    whose: &mut Option<TenantId>,
) -> Result<(Request, Permit), Problem> {
    RequestContext::current(|context| context.set_endpoint(plane.product.mount, &request));
    let Identified { names } = request
        .extensions_mut()
        .remove::<Identified>()
        .ok_or_else(|| Problem::internal("the request was not identified before it was routed"))?;
    let lookup = names.first().and_then(super::identify::Name::lookup).ok_or_else(not_found)?;
    let served = plane.routes.of_name(&lookup).await?.ok_or_else(not_found)?;
    let is_named_by_all = names.iter().all(|name| is_named(&served.route, name));
    if !is_named_by_all || served.route.status != Status::Active {
        return Err(not_found());
    }
    RequestContext::current(|context| context.set_tenant(std::sync::Arc::clone(&served.label)));
    may_be_served(&plane.product, &served.route)?;
    *whose = Some(served.route.tenant);
    let principal = Principal::new("public".to_owned(), Vec::new(), []);
    let client = Client::Address(RequestContext::current(RequestContext::client).flatten());
    let limited = limit::limit(plane, Authorized { principal, served }, client, allowance).await?;
    let permit = limited.permit.clone();
    let session = connect::connect(plane, limited).await?;
    request.extensions_mut().insert(PublicSession::new(session));
    Ok((request, permit))
}
