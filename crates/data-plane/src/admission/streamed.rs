//! An answer that is still being made: a body that is streamed keeps its request's permit until it has ended, or nobody
//! wants it any more. Else a tenant had as many streams as it likes, whatever its plan says.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use http_body::{Frame, SizeHint};

use crate::uses::Permit;

/// Hands the permit to the body, if there is more to come of it.
pub(super) fn keep(response: Response, permit: Permit) -> Response {
    // What is there as a whole costs the tenant's share no longer, however slowly it is read.
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| Body::new(Streamed { body, permit: Some(permit) }))
}

struct Streamed {
    body: Body,
    permit: Option<Permit>,
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.permit = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
