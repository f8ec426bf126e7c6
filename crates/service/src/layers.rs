//! What surrounds every request of an API, in the order in which a request meets it.
//!
//! It knows requests and problems, and no tenant: who a request is for is only counted here, as inner layers tell.

mod limits;
mod problems;
mod request_id;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::FutureExt as _;

use crate::telemetry::{RequestContext, Telemetry, TenantLabel};
pub use limits::BODY_LIMIT;
pub use request_id::RequestId;

/// What the edge needs to know.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Where requests are counted.
    pub telemetry: Telemetry,
    /// How long a request may take before it is answered with 503. Longer than any long poll.
    pub timeout: Duration,
}

/// Puts the edge around a whole API.
///
/// It is one layer, and not one for each concern: for every request a layer clones all that is inside of it, so that
/// eight layers cost more than all of a request's own work (measured: 13 of 54 percent of the time).
pub fn edge(router: Router, config: EdgeConfig) -> Router {
    router.layer(middleware::from_fn_with_state(Arc::new(config), around))
}

async fn around(State(config): State<Arc<EdgeConfig>>, request: Request, next: Next) -> Response {
    // First, because everything further in says the id.
    let context = RequestContext::of(&request);
    let mut response = Arc::clone(&context).scope(answer(&config, &context, request, next)).await;
    context.id().tell(&mut response);
    response
}

async fn answer(config: &EdgeConfig, context: &RequestContext, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let work = async {
        match limits::limit_body(request) {
            Ok(request) => limits::in_time(config.timeout, next.run(request)).await,
            Err(problem) => problem,
        }
    };
    let answered = AssertUnwindSafe(work).catch_unwind().await;
    // After whatever answers in the handlers' place: panics, timeouts, limits, the router.
    let response = problems::told(answered.unwrap_or_else(|_| problems::panicked()), context);
    // Last, to count the status that is sent.
    let tenant = response.extensions().get::<TenantLabel>();
    config.telemetry.requests().count(context, tenant, response.status(), start.elapsed());
    tracing::debug!(status = response.status().as_u16(), "answered");
    response
}

#[cfg(test)]
mod tests;
