//! Axum's extractors with problems for rejections: what was wrong, and in which field.
//!
//! Nothing here looks at what the input means; that is the handlers' part.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, OptionalFromRequest, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::Problem;

/// A NUL in a URI. Postgres has no text with one in it, and would refuse the statement.
const NUL: &str = "%00";

/// A JSON body, in requests and in answers.
///
/// Refuses with 415 `unsupported-media-type`, 413 `body-too-large`, 400 `malformed-json` (not JSON),
/// or 422 `invalid-body` (JSON of another shape, the field named). `Option<Json<T>>` takes a request
/// without a body too.
#[derive(Debug, Clone, Copy, Default)]
pub struct Json<T>(pub T);

/// A JSON body of any kind, where the body is a value and no object; refuses as [`Json`] does.
#[derive(Debug, Clone, Default)]
pub struct AnyJson(pub serde_json::Value);

/// The query string; refuses with 400 `invalid-query`, the parameter named.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<T>(pub T);

/// The path's parameters; what does not parse names nothing: 404 `not-found`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !says_json(request.headers()) {
            return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        parse_json(&read(request, state).await?).map(Self)
    }
}

impl<T: DeserializeOwned, S: Send + Sync> OptionalFromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Option<Self>, Problem> {
        let is_json = says_json(request.headers());
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if !is_json {
            return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        parse_json(&bytes).map(|body| Some(Self(body)))
    }
}

impl<S: Send + Sync> FromRequest<S> for AnyJson {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !says_json(request.headers()) {
            return Err(Problem::of_status(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        }
        serde_json::from_slice(&read(request, state).await?).map(Self).map_err(|error| malformed(&error))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => ([(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
            Err(error) => Problem::internal(error).into_response(),
        }
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        if query.contains(NUL) {
            let detail = "The query string is not valid: it has a NUL character, which no text here has.";
            return Err(Problem::new(StatusCode::BAD_REQUEST, "invalid-query", detail));
        }
        parse_query(query).map(Self)
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if parts.uri.path().contains(NUL) {
            return Err(Problem::of_status(StatusCode::NOT_FOUND));
        }
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) if rejection.status().is_server_error() => Err(Problem::internal(rejection)),
            Err(rejection) => Err(Problem::of_status(StatusCode::NOT_FOUND).with_source(rejection)),
        }
    }
}

/// The one bearer token of a request (RFC 6750); two credentials are none.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (first, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = first.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Parses a JSON body that was read before, with the same problems as [`Json`].
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if bytes.trim_ascii_start().starts_with(b"[") {
        // Serde would take an array for an object, its items for the fields in their order.
        serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map_err(|error| malformed(&error))?;
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", "The body must be a JSON object."));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        if error.is_data() {
            let (field, detail) = blame(path, error.to_string());
            let whole = format!("The body is not valid: {detail}.");
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", whole);
            // A dot is the body itself.
            if field == "." { problem } else { problem.with_field(field, detail) }
        } else {
            malformed(&error)
        }
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}

fn malformed(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "malformed-json", format!("The body is not JSON: {error}."))
}

fn parse_query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    // `form_urlencoded` decodes bytes that are no UTF-8 lossily, so nothing strange fails here.
    let parser = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(parser).map_err(|error| {
        let path = error.path().to_string();
        let (field, detail) = blame(path, error.into_inner().to_string());
        Problem::new(StatusCode::BAD_REQUEST, "invalid-query", format!("The query string is not valid: {detail}."))
            .with_field(field, detail)
    })
}

/// The field to blame. Serde puts the name of one that is missing, or there twice, in its text and not in the path.
fn blame(path: String, detail: String) -> (String, String) {
    let told = ["missing field `", "duplicate field `"].iter().find_map(|begin| detail.strip_prefix(begin));
    let told = told.and_then(|rest| rest.split('`').next());
    let field = match (path.as_str(), told) {
        (".", Some(name)) => name.to_owned(),
        (parent, Some(name)) => format!("{parent}.{name}"),
        _ => path,
    };
    // Rust's names are not the caller's, and what the caller sent is not told back at any length.
    let detail = match detail.split_once(", expected struct ") {
        Some((what, _)) => format!("{what}, expected a JSON object"),
        None => detail,
    };
    (short(&field), short(&detail))
}

/// Tells null from absent, for a field with `#[serde(default, deserialize_with = "present")]`: a null is refused where the
/// field holds no null, and not taken for a field that was left out (RFC 7396).
pub fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A text that a caller sent, as a problem may repeat it: 200 characters at most.
pub fn short(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::of_status(StatusCode::PAYLOAD_TOO_LARGE),
        _ => Problem::new(
            StatusCode::BAD_REQUEST,
            "incomplete-body",
            "The body ended before all of it had arrived. Send the request again.",
        )
        .with_source(rejection),
    })
}

/// `application/json` or `application/*+json`, whatever the parameters.
fn says_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.strip_prefix("application/").is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the refusals matter")]
    struct Pet {
        name: String,
        owner: Option<Owner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the refusals matter")]
    struct Owner {
        age: u8,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only the refusals matter")]
    struct Page {
        limit: Option<u32>,
    }

    fn refusal(body: &str) -> (&'static str, Vec<String>) {
        let problem = parse_json::<Pet>(body.as_bytes()).unwrap_err();
        (problem.kind(), problem.errors().iter().map(|error| error.field.clone()).collect())
    }

    #[test]
    fn a_refused_body_names_the_field() {
        assert_eq!(refusal("{"), ("malformed-json", vec![]));
        assert_eq!(refusal(r#"{"name":"x"} y"#), ("malformed-json", vec![]));
        assert_eq!(refusal(r#"{"name":1}"#), ("invalid-body", vec!["name".into()]));
        assert_eq!(refusal(r#"{"nmae":"x"}"#), ("invalid-body", vec!["nmae".into()]));
        assert_eq!(refusal(r#"["x"]"#), ("invalid-body", vec![]), "no fields in their order");
        assert_eq!(refusal("7"), ("invalid-body", vec![]));
        assert_eq!(refusal("["), ("malformed-json", vec![]));
        assert_eq!(refusal("{}"), ("invalid-body", vec!["name".into()]));
        assert_eq!(refusal(r#"{"name":"x","name":"y"}"#), ("invalid-body", vec!["name".into()]));
        assert_eq!(refusal(r#"{"name":"x","owner":{}}"#), ("invalid-body", vec!["owner.age".into()]));
        assert_eq!(refusal(r#"{"name":"x","owner":{"age":999}}"#), ("invalid-body", vec!["owner.age".into()]));
    }

    #[test]
    fn a_refused_query_names_the_parameter() {
        for (query, field) in [("limit=many", "limit"), ("sort=x", "sort"), ("limit=1&limit=2", "limit")] {
            let problem = parse_query::<Page>(query).unwrap_err();
            assert_eq!((problem.kind(), problem.errors()[0].field.as_str()), ("invalid-query", field));
        }
        assert!(parse_query::<Page>("").is_ok());
    }

    #[tokio::test]
    async fn another_media_type_is_415_and_no_body_is_no_option() {
        let request = |content_type: &'static str, body: &'static str| {
            Request::builder().header(header::CONTENT_TYPE, content_type).body(Body::from(body)).unwrap()
        };
        let refused = <Json<Pet> as FromRequest<()>>::from_request(request("text/plain", "{}"), &()).await.unwrap_err();
        assert_eq!(refused.kind(), "unsupported-media-type");
        let taken = <Json<Pet> as FromRequest<()>>::from_request(
            request("application/merge-patch+json; charset=utf-8", r#"{"name":"x"}"#),
            &(),
        )
        .await;
        assert!(taken.is_ok());
        let none = <Json<Pet> as OptionalFromRequest<()>>::from_request(request("text/plain", ""), &()).await.unwrap();
        assert!(none.is_none());
    }

    #[test]
    fn one_bearer_token_is_taken_and_two_credentials_are_none() {
        let headers = |values: &[&str]| -> HeaderMap {
            values.iter().map(|value| (header::AUTHORIZATION, value.parse().unwrap())).collect()
        };
        assert_eq!(bearer(&headers(&["bEARER abc "])), Some("abc"));
        for none in [&[][..], &["abc"], &["Basic abc"], &["Bearer a", "Bearer b"]] {
            assert_eq!(bearer(&headers(none)), None, "{none:?}");
        }
    }
}
