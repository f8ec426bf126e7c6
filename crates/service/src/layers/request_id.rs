//! The request's id: the caller's own if it is sound, else a new one. Every answer says it.

use std::sync::Arc;

use axum::{extract::FromRequestParts, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};
use uuid::Uuid;

use crate::{Problem, telemetry::RequestContext};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request at hand: 1 to 128 visible ASCII characters. An extractor behind the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers.get(X_REQUEST_ID).and_then(Self::take).unwrap_or_else(Self::make)
    }

    pub(super) fn tell(&self, response: &mut Response) {
        let value = HeaderValue::from_str(self.as_str()).expect("an id is visible ASCII");
        response.headers_mut().insert(X_REQUEST_ID, value);
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

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Problem> {
        let id = RequestContext::current(|context| context.id().clone());
        id.ok_or_else(|| Problem::internal("no edge around this handler: no request id"))
    }
}
