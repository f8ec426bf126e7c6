//! Admission: from a request to a `TenantSession`. Each step takes the type that the step before it returns, so that none
//! can be skipped or moved.

mod authenticate;
mod authorize;
mod connect;
pub(crate) mod identify;
mod limit;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use service::Problem;
use service::telemetry::RequestContext;

use crate::plane::Plane;
use identify::Identified;

/// The walk, around every handler of the product.
pub(crate) async fn admit(State(plane): State<Plane>, mut request: Request, next: Next) -> Result<Response, Problem> {
    RequestContext::current(|context| context.set_endpoint(plane.product.mount, &request));
    let identified = request
        .extensions_mut()
        .remove::<Identified>()
        .ok_or_else(|| Problem::internal("the request was not identified before it was routed"))?;
    let authenticated = authenticate::authenticate(&plane.routes, identified, request.headers()).await?;
    RequestContext::current(|context| context.set_tenant(authenticated.label()));
    let authorized = authorize::authorize(&plane.product, authenticated)?;
    let limited = limit::limit(authorized)?;
    let session = connect::connect(&plane.pools, &plane.product, limited).await?;
    request.extensions_mut().insert(session);
    Ok(next.run(request).await)
}
