//! The one error of every API: an RFC 9457 problem.
//!
//! Its public text (`type`, `title`, `detail`, the bad fields) is for the caller; its source is for
//! the log. The source is never sent: it is logged once, by the edge's layer.

mod database;
mod no_connection;

use std::{error::Error, fmt, sync::Arc, time::Duration};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use database::{driver_is_unavailable, is_unavailable};
pub use no_connection::NoConnection;

/// Any error that can be the private source of a [`Problem`].
pub type BoxError = Box<dyn Error + Send + Sync + 'static>;

/// What went wrong, said twice: in public (status, kind, detail, fields) and in private (source).
///
/// The kind is the stable part, `slug-taken`; the body's `type` is `urn:freehold:problem:slug-taken`
/// and its `title` "Slug taken". The detail says what the caller should do.
#[derive(Debug, Clone)]
pub struct Problem(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    status: StatusCode,
    kind: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    headers: HeaderMap,
    source: Option<Arc<dyn Error + Send + Sync + 'static>>,
}

/// The body of a problem, as it is sent and as the API's description shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Stable name of the kind of problem, `urn:freehold:problem:<kind>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words, the same for each problem of the kind.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What happened this time, and what to do.
    pub detail: String,
    /// The request's id, as in the `X-Request-Id` header and in the service's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The fields of the input that were refused, if it was the input's fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
}

/// One refused field of the input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Path of the field, as `config.colour` or `items[2].name`.
    pub field: String,
    /// Why it was refused.
    pub detail: String,
}

impl Problem {
    /// The media type of every problem.
    pub const MEDIA_TYPE: &'static str = "application/problem+json";

    /// What every `type` starts with.
    pub const TYPE_PREFIX: &'static str = "urn:freehold:problem:";

    /// A problem of a `kind` in kebab case; the `detail` is public and says what to do.
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            kind,
            detail: detail.into(),
            errors: Vec::new(),
            headers: HeaderMap::new(),
            source: None,
        }))
    }

    /// 500 `internal`: our fault; the source is for the log alone.
    pub fn internal(source: impl Into<BoxError>) -> Self {
        Self::of_status(StatusCode::INTERNAL_SERVER_ERROR).with_source(source)
    }

    /// 404 `not-found`.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// 422 `invalid-body` that names the field.
    pub fn invalid_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", format!("`{field}` is not valid: {detail}"))
            .with_field(field, detail)
    }

    /// The problem for a bare status, as the framework answers it without a body.
    pub fn of_status(status: StatusCode) -> Self {
        let (kind, detail) = match status {
            StatusCode::BAD_REQUEST => ("bad-request", "The request could not be read. Check its syntax."),
            StatusCode::UNAUTHORIZED => ("unauthorized", "Send a valid credential in the Authorization header."),
            StatusCode::FORBIDDEN => ("forbidden", "The credential does not allow this."),
            StatusCode::NOT_FOUND => ("not-found", "There is nothing here. Check the path against /openapi.json."),
            StatusCode::METHOD_NOT_ALLOWED => (
                "method-not-allowed",
                "This path does not take that method. The Allow header lists those that it takes.",
            ),
            StatusCode::REQUEST_TIMEOUT => ("request-timeout", "The request did not arrive in time. Send it again."),
            StatusCode::PAYLOAD_TOO_LARGE => ("body-too-large", "The body is larger than 1 MiB. Send a smaller one."),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                ("unsupported-media-type", "Send the body as JSON, with Content-Type: application/json.")
            }
            StatusCode::UNPROCESSABLE_ENTITY => ("invalid-body", "The body was understood but is not valid."),
            StatusCode::TOO_MANY_REQUESTS => ("too-many-requests", "Too many requests. Wait, then send it again."),
            StatusCode::SERVICE_UNAVAILABLE => {
                ("unavailable", "The service cannot answer now. Send the request again later.")
            }
            status if status.is_client_error() => ("bad-request", "The request could not be accepted."),
            _ => (
                "internal",
                "The request failed on our side. Send it again later; if it still fails, report \
                 the request id.",
            ),
        };
        Self::new(status, kind, detail)
    }

    /// Adds the private source, which is logged once at the edge and never sent.
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Adds a refused field of the input.
    pub fn with_field(mut self, field: impl Into<String>, detail: impl Into<String>) -> Self {
        self.0.errors.push(FieldError { field: field.into(), detail: detail.into() });
        self
    }

    /// Adds `Retry-After`, in whole seconds rounded up.
    pub fn with_retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with_header(header::RETRY_AFTER, HeaderValue::from(seconds))
    }

    /// Adds a header to the answer.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    /// The kind in kebab case.
    pub fn kind(&self) -> &'static str {
        self.0.kind
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The public detail.
    pub fn detail(&self) -> &str {
        &self.0.detail
    }

    /// The refused fields.
    pub fn errors(&self) -> &[FieldError] {
        &self.0.errors
    }

    /// The body as it is sent for the request of that id.
    pub fn body(&self, request_id: Option<&str>) -> ProblemBody {
        ProblemBody {
            kind: format!("{}{}", Self::TYPE_PREFIX, self.kind()),
            title: title(self.kind()),
            status: self.status().as_u16(),
            detail: self.0.detail.clone(),
            request_id: request_id.map(str::to_owned),
            errors: self.0.errors.clone(),
        }
    }

    /// The body's bytes.
    pub(crate) fn bytes(&self, request_id: Option<&str>) -> Body {
        let bytes = serde_json::to_vec(&self.body(request_id)).expect("strings and numbers always serialise");
        Body::from(bytes)
    }

    /// The private source and what caused it, in one line for the log.
    pub fn source_chain(&self) -> Option<String> {
        let first = self.0.source.as_deref()?;
        let mut line = first.to_string();
        let mut next = first.source();
        while let Some(cause) = next {
            let text = cause.to_string();
            // Many errors repeat their cause in their own text.
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            next = cause.source();
        }
        Some(line)
    }
}

/// `slug-taken` as "Slug taken".
fn title(kind: &str) -> String {
    let mut words = kind.replace('-', " ");
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    words
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.detail)
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl IntoResponse for Problem {
    /// The answer carries the problem in its extensions, so that the edge can log its source and
    /// write the request id into the body.
    fn into_response(self) -> Response {
        let mut response = Response::new(self.bytes(None));
        *response.status_mut() = self.status();
        *response.headers_mut() = self.0.headers.clone();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(Self::MEDIA_TYPE));
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_holds_the_public_text_and_never_the_source() {
        let problem =
            Problem::new(StatusCode::CONFLICT, "slug-taken", "Another tenant has the slug `acme`. Choose another.")
                .with_field("slug", "is taken")
                .with_source("secret of the database");
        insta::assert_json_snapshot!(problem.body(Some("req-1")), @r#"
        {
          "type": "urn:freehold:problem:slug-taken",
          "title": "Slug taken",
          "status": 409,
          "detail": "Another tenant has the slug `acme`. Choose another.",
          "request_id": "req-1",
          "errors": [
            {
              "field": "slug",
              "detail": "is taken"
            }
          ]
        }
        "#);
        assert_eq!(problem.to_string(), problem.detail());
        assert_eq!(problem.source_chain().as_deref(), Some("secret of the database"));
    }

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        let response = Problem::of_status(StatusCode::TOO_MANY_REQUESTS)
            .with_retry_after(Duration::from_millis(1_001))
            .into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(response.headers()[header::CONTENT_TYPE], Problem::MEDIA_TYPE);
        assert!(response.extensions().get::<Problem>().is_some());
    }
}
