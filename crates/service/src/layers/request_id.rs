//! The request's id: the caller's own if it is sound, else a new one. Every answer says it.

use std::sync::Arc;

use axum::{
    extract::{FromRequestParts, Request},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, HeaderValue, request::Parts};
use uuid::Uuid;

use crate::Problem;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request at hand: 1 to 128 visible ASCII characters. An extractor behind the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn make() -> Self {
        // Version 7 sorts by time, which helps whoever reads logs.
        Self(Uuid::now_v7().to_string().into())
    }

    fn take(value: &HeaderValue) -> Option<Self> {
        let is_sound = (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
        is_sound.then(|| value.to_str().ok().map(|id| Self(id.into()))).flatten()
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| Problem::internal("no edge around this handler: no request id"))
    }
}

pub(super) async fn request_id(mut request: Request, next: Next) -> Response {
    let id = request.headers().get(X_REQUEST_ID).and_then(RequestId::take).unwrap_or_else(RequestId::make);
    let value = HeaderValue::from_str(id.as_str()).expect("an id is visible ASCII");
    request.extensions_mut().insert(id);
    let mut response = next.run(request).await;
    response.headers_mut().insert(X_REQUEST_ID, value);
    response
}
