//! Paths and query strings out of what was typed, whatever that was.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// `/v1/` and the segments, each escaped.
pub(crate) fn path<const N: usize>(segments: [&str; N]) -> String {
    segments.iter().fold("/v1".to_owned(), |path, segment| format!("{path}/{}", utf8_percent_encode(segment, RESERVED)))
}

/// A query string of those that have a value, with its question mark; empty when none has.
pub(crate) fn query<const N: usize>(pairs: [(&str, Option<&str>); N]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(name);
            text.push('=');
            text.extend(utf8_percent_encode(value, RESERVED));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_stays_one_segment_and_one_value() {
        assert_eq!(path(["tenants", "a/b?c=d #é"]), "/v1/tenants/a%2Fb%3Fc%3Dd%20%23%C3%A9");
        assert_eq!(query([("q", Some("a&b")), ("plan", None), ("server", Some("x"))]), "?q=a%26b&server=x");
        assert_eq!(query([("q", None)]), "");
    }
}
