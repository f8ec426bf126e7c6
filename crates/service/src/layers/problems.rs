//! Where every error leaves: its source is logged once, its body says the request's id, and what
//! the framework answered by itself (404, 405, 413, …) becomes a problem like any other.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Method, header};

use crate::{Problem, telemetry::RequestContext};

pub(super) fn told(mut response: Response, context: &RequestContext) -> Response {
    let Some(problem) = problem_of(&response) else { return response };
    log(&problem);
    // Other headers stay: a 405 keeps its Allow.
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Problem::MEDIA_TYPE));
    *response.body_mut() =
        if context.method() == Method::HEAD { Body::empty() } else { problem.bytes(Some(context.id().as_str())) };
    response
}

/// What a caller learns of a panic: that it was our fault. Its text goes to the log, where the
/// panic's hook writes it.
pub(super) fn panicked() -> Response {
    Problem::internal("the handler panicked").into_response()
}

fn problem_of(response: &Response) -> Option<Problem> {
    if let Some(problem) = response.extensions().get::<Problem>() {
        return Some(problem.clone());
    }
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(Problem::MEDIA_TYPE.as_bytes()));
    (is_error && !is_problem).then(|| Problem::of_status(status))
}

fn log(problem: &Problem) {
    let (kind, status) = (problem.kind(), problem.status().as_u16());
    let source = problem.source_chain();
    if problem.status().is_server_error() {
        tracing::error!(kind, status, source, "the request failed");
    } else if source.is_some() {
        tracing::debug!(kind, status, source, "the request was refused");
    }
}
