//! What a caller asks of a request beside its content: `If-Match` (RFC 9110) and `Prefer: wait` (RFC 7240).

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use service::Problem;

/// The longest that `Prefer: wait` waits.
const LONGEST_WAIT: Duration = Duration::from_secs(50);

/// A tenant's entity tag: the count of its changes.
pub(super) fn etag(version: i64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).expect("digits and quotes make a header")
}

/// Refuses with 412 `stale` when `If-Match` names other versions than this one.
pub(super) fn if_match(headers: &HeaderMap, version: i64) -> Result<(), Problem> {
    let current = format!("\"{version}\"");
    let mut named = headers.get_all(header::IF_MATCH).iter().peekable();
    let is_met = named.peek().is_none()
        || named
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|tag| tag.trim() == "*" || tag.trim() == current);
    if is_met {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::PRECONDITION_FAILED,
        "stale",
        "It was changed since you read it. Read it again, and send its new ETag in If-Match.",
    ))
}

/// Somebody else was faster.
pub(super) fn concurrent_change(of: &str) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "concurrent-change",
        format!("Another request changed the {of} at the same time. Read it again, and repeat the request."),
    )
}

/// How long the caller would rather wait than be answered 202.
pub(super) fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .find_map(|preference| {
            let (name, seconds) = preference.trim().split_once('=')?;
            name.trim().eq_ignore_ascii_case("wait").then(|| seconds.trim().trim_matches('"').parse().ok())?
        })
        .map(|seconds| Duration::from_secs(seconds).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn a_version_among_those_named_is_met_and_any_other_is_stale() {
        assert!(if_match(&HeaderMap::new(), 3).is_ok());
        for met in ["*", "\"3\"", "\"1\", \"3\""] {
            assert!(if_match(&headers("if-match", met), 3).is_ok(), "{met}");
        }
        for stale in ["\"2\"", "3", "W/\"3\"", ""] {
            assert_eq!(if_match(&headers("if-match", stale), 3).unwrap_err().kind(), "stale", "{stale}");
        }
    }

    #[test]
    fn a_wait_is_read_and_bounded() {
        let wait = |value| preferred_wait(&headers("prefer", value));
        assert_eq!(wait("wait=5"), Some(Duration::from_secs(5)));
        assert_eq!(wait("respond-async, WAIT=\"7\""), Some(Duration::from_secs(7)));
        assert_eq!(wait("wait=100000"), Some(LONGEST_WAIT));
        assert_eq!(wait("wait=-1"), None);
        assert_eq!(wait("return=minimal"), None);
    }
}
