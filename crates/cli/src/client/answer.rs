//! What came back, read to its end.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use ureq::Body;
use ureq::http::{HeaderName, Response, header};

/// An answer. It may hold a new key's secret, and has no debug print.
pub(crate) struct Answer {
    pub(super) status: u16,
    /// The media type, without parameters.
    pub(super) media: String,
    pub(super) location: Option<String>,
    etag: Option<String>,
    pub(super) request_id: Option<String>,
    pub(super) retry_after: Option<Duration>,
    text: String,
}

impl Answer {
    pub(super) fn read(mut response: Response<Body>) -> Result<Self, ureq::Error> {
        let text = response.body_mut().read_to_string()?;
        let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        let media = header(header::CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or_default();
        Ok(Self {
            status: response.status().as_u16(),
            media: media.trim().to_ascii_lowercase(),
            location: header(header::LOCATION).map(str::to_owned),
            etag: header(header::ETAG).map(str::to_owned),
            request_id: header(HeaderName::from_static("x-request-id")).map(str::to_owned),
            retry_after: header(header::RETRY_AFTER).and_then(|value| value.parse().ok()).map(Duration::from_secs),
            text,
        })
    }

    /// The JSON as it came.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Which version of the thing it shows, if the server says so.
    pub(crate) fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// The JSON, read as `what`.
    pub(crate) fn json<T: DeserializeOwned>(&self, what: &str) -> Result<T> {
        serde_json::from_str(&self.text).with_context(|| {
            format!(
                "the server answered JSON that is no {what}; check --url, and that it is of this freehold's version"
            )
        })
    }

    /// The JSON as it came, to be a part of a larger document.
    pub(crate) fn raw(&self) -> Result<Box<RawValue>> {
        self.json("answer of the API")
    }

    /// A request with the same `Idempotency-Key` is at work yet.
    pub(super) fn is_in_progress(&self) -> bool {
        self.status == 409 && self.text.contains("urn:freehold:problem:request-in-progress")
    }

    /// The server, or one on the way to it, cannot answer now.
    pub(super) fn is_unavailable(&self) -> bool {
        matches!(self.status, 502..=504)
    }
}
