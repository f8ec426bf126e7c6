//! Counts each request by tenant, endpoint, method and status, and measures how long it took.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};

use crate::telemetry::{Labels, Telemetry, TenantLabel};

pub(super) async fn count(State(telemetry): State<Telemetry>, mut request: Request, next: Next) -> Response {
    let labels = Labels::default();
    let method = request.method().clone();
    request.extensions_mut().insert(labels.clone());
    let start = Instant::now();
    let response = next.run(request).await;
    telemetry.requests().count(
        &labels,
        response.extensions().get::<TenantLabel>(),
        &method,
        response.status(),
        start.elapsed(),
    );
    response
}

/// The route's pattern is known inside of the router alone.
pub(super) async fn name_endpoint(request: Request, next: Next) -> Response {
    let extensions = request.extensions();
    if let (Some(labels), Some(path)) = (extensions.get::<Labels>(), extensions.get::<MatchedPath>()) {
        labels.set_endpoint(path.as_str());
    }
    next.run(request).await
}
