//! The request's span: its id, its trace (the caller's, if `traceparent` names one), its end.
//!
//! The query string is not logged; it may hold what only the caller should know.

use axum::{extract::Request, middleware::Next, response::Response};
use http::HeaderMap;
use opentelemetry::{
    propagation::{Extractor, TextMapPropagator},
    trace::TraceContextExt,
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Instrument, Span, field::Empty};
use tracing_opentelemetry::OpenTelemetrySpanExt;

use super::RequestId;

pub(super) async fn trace(request: Request, next: Next) -> Response {
    let span = span_of(&request);
    async move {
        let response = next.run(request).await;
        let status = response.status().as_u16();
        Span::current().record("status", status);
        tracing::debug!(status, "answered");
        response
    }
    .instrument(span)
    .await
}

fn span_of(request: &Request) -> Span {
    let span = tracing::info_span!(
        "request",
        request_id = request.extensions().get::<RequestId>().map(RequestId::as_str),
        trace_id = Empty,
        method = %request.method(),
        path = request.uri().path(),
        // Whoever learns it records it.
        tenant = Empty,
        status = Empty,
    );
    if span.is_disabled() {
        return span;
    }
    if request.headers().contains_key("traceparent") {
        let parent = TraceContextPropagator::new().extract(&Headers(request.headers()));
        // It fails only where no tracer listens, and then there is nothing to join.
        let _ = span.set_parent(parent);
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    if context.is_valid() {
        span.record("trace_id", tracing::field::display(context.trace_id()));
    }
    span
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
