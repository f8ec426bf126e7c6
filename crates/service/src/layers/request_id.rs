//! The request's id: the caller's own if it is sound, else a new one. Every answer says it.

use axum::{extract::FromRequestParts, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue, request::Parts};
use uuid::Uuid;

use crate::{Problem, telemetry::RequestContext};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of the request at hand: 1 to 128 visible ASCII characters. An extractor behind the edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    /// The id.
    pub fn as_str(&self) -> &str {
        // It is visible ASCII: whoever made or took it saw to that.
        self.0.to_str().unwrap_or_default()
    }

    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers.get(X_REQUEST_ID).and_then(Self::take).unwrap_or_else(Self::make)
    }

    pub(super) fn tell(&self, response: &mut Response) {
        response.headers_mut().insert(X_REQUEST_ID, self.0.clone());
    }

    fn make() -> Self {
        // Version 7 sorts by time, which helps whoever reads logs.
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let id = Uuid::now_v7().hyphenated().encode_lower(&mut text);
        Self(HeaderValue::from_str(id).expect("an id is visible ASCII"))
    }

    fn take(value: &HeaderValue) -> Option<Self> {
        let is_sound = (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
        is_sound.then(|| Self(value.clone()))
    }
}

impl<S: Sync> FromRequestParts<S> for RequestId {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Problem> {
        let id = RequestContext::current(|context| context.id().clone());
        id.ok_or_else(|| Problem::internal("no edge around this handler: no request id"))
    }
}
