//! Admission: from a request to a `TenantSession`. Each step takes the type that the step before it returns, so that none
//! can be skipped or moved.

mod authenticate;
mod authorize;
mod connect;
pub(crate) mod identify;
mod limit;

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use service::Problem;
use service::telemetry::RequestContext;
use tower::{Layer, Service, ServiceExt as _};

use crate::plane::Plane;
use identify::Identified;

/// Puts the walk around every handler of the product.
#[derive(Clone)]
pub(crate) struct AdmissionLayer(pub(crate) Plane);

impl<S> Layer<S> for AdmissionLayer {
    type Service = Admission<S>;

    fn layer(&self, inner: S) -> Admission<S> {
        Admission { plane: self.0.clone(), inner }
    }
}

/// A handler of the product behind admission.
#[derive(Clone)]
pub(crate) struct Admission<S> {
    plane: Plane,
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
        let (plane, inner) = (self.plane.clone(), self.inner.clone());
        Box::pin(async move {
            match admit(&plane, request).await {
                Ok(request) => inner.oneshot(request).await,
                Err(problem) => Ok(problem.into_response()),
            }
        })
    }
}

/// The walk. What it lets pass carries its session.
async fn admit(plane: &Plane, mut request: Request) -> Result<Request, Problem> {
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
    Ok(request)
}
