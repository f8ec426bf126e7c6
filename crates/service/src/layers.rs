//! The layers around every request of an API, in the order in which a request meets them.
//!
//! They know requests and problems, and no tenant: who a request is for is only counted here, as
//! inner layers tell.

mod count;
mod limits;
mod problems;
mod request_id;
mod trace;

use std::time::Duration;

use axum::{Router, extract::DefaultBodyLimit, middleware};
use tower::ServiceBuilder;
use tower_http::{catch_panic::CatchPanicLayer, limit::RequestBodyLimitLayer};

use crate::telemetry::Telemetry;
pub use request_id::RequestId;

/// The largest body that is read: 1 MiB.
pub const BODY_LIMIT: usize = 1024 * 1024;

/// What the edge needs to know.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// Where requests are counted.
    pub telemetry: Telemetry,
    /// How long a request may take before it is answered with 503. Longer than any long poll.
    pub timeout: Duration,
}

/// Puts the edge around a whole API.
pub fn edge(router: Router, config: EdgeConfig) -> Router {
    let layers = ServiceBuilder::new()
        // First, because everything further in says the id.
        .layer(middleware::from_fn(request_id::request_id))
        // Around all work, so that each log line of a request is inside its span.
        .layer(middleware::from_fn(trace::trace))
        // Outside of the problems, to count the status that is sent.
        .layer(middleware::from_fn_with_state(config.telemetry, count::count))
        // Outside of whatever answers in the handlers' place: panics, timeouts, limits, the router.
        .layer(middleware::from_fn(problems::problems))
        .layer(CatchPanicLayer::custom(problems::panicked))
        .layer(middleware::from_fn_with_state(config.timeout, limits::timeout))
        // Innermost, since it changes the body's type: whoever reads the body meets the limit.
        .layer(RequestBodyLimitLayer::new(BODY_LIMIT))
        .layer(DefaultBodyLimit::max(BODY_LIMIT));
    name_endpoints(router).layer(layers)
}

/// Tells the edge which route of `router` matched. [`edge`] does so for its own router; a router
/// behind another service (a fallback, a rewritten path) needs it by itself.
pub fn name_endpoints(router: Router) -> Router {
    router.layer(middleware::from_fn(count::name_endpoint))
}

#[cfg(test)]
mod tests;
