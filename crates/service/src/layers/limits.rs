//! The time that a request may take, and the bytes that it may bring.

use std::{convert::Infallible, pin::pin, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    extract::Request,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use http_body_util::Limited;

use crate::{Problem, telemetry::RequestContext};

/// The largest body that is read: 1 MiB.
pub const BODY_LIMIT: usize = 1024 * 1024;

pub(super) async fn in_time(limit: Duration, answer: impl Future<Output = Result<Response, Infallible>>) -> Response {
    // Here still when the time is over: what is dropped with it may ask why.
    let mut answer = pin!(answer);
    match tokio::time::timeout(limit, answer.as_mut()).await {
        Ok(Ok(response)) => response,
        Err(_) => {
            RequestContext::current(RequestContext::give_up);
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "timed-out",
                "The request took too long and was given up. Send it again later.",
            )
            .with_retry_after(Duration::from_secs(1))
            .into_response()
        }
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn what_is_dropped_when_the_time_is_over_can_ask_why() {
        struct Asks<'a>(&'a AtomicBool);
        impl Drop for Asks<'_> {
            fn drop(&mut self) {
                self.0.store(RequestContext::current(RequestContext::was_given_up) == Some(true), Ordering::Relaxed);
            }
        }
        for (is_late, limit) in [(true, Duration::ZERO), (false, Duration::from_mins(1))] {
            let was_late = AtomicBool::new(!is_late);
            let answer = async {
                let _asks = Asks(&was_late);
                if is_late {
                    std::future::pending::<()>().await;
                }
                Ok(StatusCode::OK.into_response())
            };
            let context = RequestContext::of(&Request::new(Body::empty()), None);
            let response = context.scope(in_time(limit, answer)).await;
            assert_eq!(response.status().is_server_error(), is_late);
            assert_eq!(was_late.load(Ordering::Relaxed), is_late);
        }
    }
}
