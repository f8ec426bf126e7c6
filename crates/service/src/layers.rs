//! What surrounds every request of an API, in the order in which a request meets it.
//!
//! It knows requests and problems, and no tenant: who a request is for is only counted here, as inner layers tell.

mod limits;
mod problems;
mod proxies;
mod request_id;

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::FutureExt as _;
use tower::{Service, ServiceExt as _};

use crate::telemetry::{RequestContext, Telemetry};
pub use limits::BODY_LIMIT;
pub use proxies::{ForwardedBy, ProxiesConfig};
pub use request_id::RequestId;

/// What the edge needs to know.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Where requests are counted.
    pub telemetry: Telemetry,
    /// How long a request may take before it is answered with 503. Longer than any long poll.
    pub timeout: Duration,
    /// Who may say where a request comes from.
    pub proxies: ProxiesConfig,
}

/// A whole API: a router, or what chooses among several.
pub trait Api:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Api for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

/// An API inside of the edge.
///
/// It is one service around all of it, and not a layer of a router for each concern: for every request a layer clones all
/// that is inside of it. Eight of them took 13 of the 54 percent of the time that requests were at work, when they were.
#[derive(Clone, Debug)]
pub struct Edge<S> {
    config: Arc<EdgeConfig>,
    api: S,
}

/// Puts the edge around a whole API.
pub fn edge<S: Api>(api: S, config: EdgeConfig) -> Edge<S> {
    Edge { config: Arc::new(config), api }
}

impl<S: Api> Service<Request> for Edge<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The API is asked when there is a request for it.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let (config, api) = (Arc::clone(&self.config), self.api.clone());
        Box::pin(async move {
            let client = config.proxies.settle(&mut request);
            // First, because everything further in says the id.
            let context = RequestContext::of(&request, client);
            let mut response = Arc::clone(&context).scope(answer(&config, &context, request, api)).await;
            context.id().tell(&mut response);
            Ok(response)
        })
    }
}

/// Tells the edge which route of a router matched, for what is counted: patterns, of which there are few.
pub fn name_endpoints(router: Router) -> Router {
    router.layer(middleware::from_fn(async |request: Request, next: Next| {
        RequestContext::current(|context| context.set_endpoint("", &request));
        next.run(request).await
    }))
}

async fn answer(config: &EdgeConfig, context: &RequestContext, request: Request, api: impl Api) -> Response {
    let start = Instant::now();
    let work = async {
        match limits::limit_body(request) {
            Ok(request) => limits::in_time(config.timeout, api.oneshot(request)).await,
            Err(problem) => problem,
        }
    };
    let answered = AssertUnwindSafe(work).catch_unwind().await;
    // After whatever answers in the handlers' place: panics, timeouts, limits, the router.
    let response = problems::told(answered.unwrap_or_else(|_| problems::panicked()), context);
    // Last, to count the status that is sent.
    config.telemetry.requests().count(context, response.status(), start.elapsed());
    tracing::debug!(status = response.status().as_u16(), "answered");
    response
}

#[cfg(test)]
mod tests;
