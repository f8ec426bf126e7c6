//! Admission: from a request to a `TenantSession`. Each step takes the type that the step before it returns, so that none
//! can be skipped or moved.

mod authenticate;
mod authorize;
mod connect;
pub(crate) mod identify;
mod limit;
#[cfg(feature = "measure")]
pub(crate) mod measure;
mod public;
mod streamed;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::{StatusCode, header};
use service::Problem;
use service::telemetry::RequestContext;
use tenancy::TenantId;
use tower::{Layer, Service, ServiceExt as _};

use crate::canaries::Counted;
use crate::limits::Allowance;
use crate::plane::Plane;
use crate::routes::Lookup;
use crate::session::{Principal, TenantSession};
use crate::uses::Permit;
use identify::Identified;
use limit::Client;

/// Which walk leads to a handler.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Door {
    /// Only who belongs to the tenant.
    Admitted,
    /// Anybody who names a tenant.
    Public,
}

/// Puts a walk around handlers of the product.
#[derive(Clone)]
pub(crate) struct AdmissionLayer(pub(crate) Plane, pub(crate) Door);

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission { plane: self.0.clone(), door: self.1, inner }
    }
}

/// A handler of the product behind admission.
#[derive(Clone)]
pub(crate) struct Admission<S> {
    plane: Plane,
    door: Door,
    inner: S,
}

impl<S> Service<Request> for Admission<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The handler is asked when a request was admitted.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let (plane, door, inner) = (self.plane.clone(), self.door, self.inner.clone());
        Box::pin(async move {
            let mut allowance = Allowance::default();
            let mut counted = Counted { canaries: plane.routes.canaries.clone(), tenant: None };
            let admitted = match door {
                Door::Admitted => admit(&plane, request, &mut allowance, &mut counted.tenant).await,
                // In a box: few requests take it, and it would be part of every one's future.
                Door::Public => Box::pin(public::admit(&plane, request, &mut allowance, &mut counted.tenant)).await,
            };
            let mut response = match admitted {
                Ok((request, permit)) => streamed::keep(inner.oneshot(request).await?, permit),
                Err(problem) => problem.into_response(),
            };
            counted.answered(response.status().is_server_error());
            // Nobody who was not authorized has one: it tells of a tenant.
            allowance.tell(response.headers_mut());
            Ok(response)
        })
    }
}

/// The walk. What it lets pass carries its session, and comes with its permit.
async fn admit(
    plane: &Plane,
    mut request: Request,
    allowance: &mut Allowance,
    whose: &mut Option<TenantId>,
) -> Result<(Request, Permit), Problem> {
    RequestContext::current(|context| context.set_endpoint(plane.product.mount, &request));
    let identified = request
        .extensions_mut()
        .remove::<Identified>()
        .ok_or_else(|| Problem::internal("the request was not identified before it was routed"))?;
    let authenticated =
        authenticate::authenticate(plane, identified, request.headers()).await.inspect_err(|problem| {
            // Who shows nothing tried nothing.
            let is_bad = matches!(problem.status(), StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS);
            if is_bad && request.headers().contains_key(header::AUTHORIZATION) {
                plane.audit.bad_credential();
            }
        })?;
    if let Some(label) = authenticated.label() {
        RequestContext::current(|context| context.set_tenant(label));
    }
    let authorized = authorize::authorize(plane, authenticated)?;
    *whose = Some(authorized.served.route.tenant);
    let limited = limit::limit(plane, authorized, Client::Principal, allowance).await?;
    let permit = limited.permit.clone();
    let session = connect::connect(plane, limited).await?;
    request.extensions_mut().insert(session);
    Ok((request, permit))
}

/// The walk of work that no request asked for: it is limited and noticed like a request.
pub(crate) async fn session_for(plane: &Plane, tenant: TenantId, purpose: &str) -> Result<TenantSession, Problem> {
    let served = plane.routes.of_name(&Lookup::Tenant(tenant)).await?.ok_or_else(authorize::not_found)?;
    let scopes = plane.product.scopes.iter().map(|&scope| scope.to_owned()).collect();
    let principal = Principal::new(format!("job:{purpose}"), scopes, [tenant]);
    authorize::may_serve(plane, &principal, &served.route)?;
    let authorized = authorize::Authorized { principal: principal.clone(), served };
    let limited = limit::limit(plane, authorized, Client::Principal, &mut Allowance::default()).await?;
    let session = connect::connect(plane, limited).await?;
    plane.audit.background(tenant, &principal);
    Ok(session)
}
