//! The time that a request may take, and the bytes that it may bring.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use http_body_util::Limited;

use crate::Problem;

/// The largest body that is read: 1 MiB.
pub const BODY_LIMIT: usize = 1024 * 1024;

pub(super) async fn in_time(limit: Duration, answer: impl Future<Output = Result<Response, Infallible>>) -> Response {
    match tokio::time::timeout(limit, answer).await {
        Ok(Ok(response)) => response,
        Err(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "timed-out",
            "The request took too long and was given up. Send it again later.",
        )
        .with_retry_after(Duration::from_secs(1))
        .into_response(),
    }
}

/// A body that says that it is too large is refused at once; one that says nothing, when whoever reads it meets the limit.
#[allow(clippy::result_large_err, reason = "it is the answer")]
pub(super) fn limit_body(request: Request) -> Result<Request, Response> {
    let said = request.headers().get(http::header::CONTENT_LENGTH);
    let said = said.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|length| length > BODY_LIMIT) {
        return Err(Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE).into_response());
    }
    Ok(if request.body().is_end_stream() {
        request
    } else {
        request.map(|body| Body::new(Limited::new(body, BODY_LIMIT)))
    })
}
