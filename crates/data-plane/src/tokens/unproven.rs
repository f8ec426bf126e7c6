//! A token before anything of it is proven: whose it says it is, so that its issuer's key is found. Nothing of it is
//! believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;

/// Longest token that is read, in bytes.
const LONGEST: usize = 8 * 1024;
/// Longest id of a key, in bytes.
const LONGEST_KEY_ID: usize = 256;

/// A text of the form of a token.
#[derive(Debug)]
pub(crate) struct Unproven<'a> {
    text: &'a str,
    header: Header,
    issuer: String,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// What the reader must understand (RFC 7515, 4.1.11); nothing of it is understood here.
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Issued {
    iss: String,
}

impl<'a> Unproven<'a> {
    /// Reads a token of three parts; none if it is not of that form, or of an algorithm that is not taken here.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let mut parts = text.split('.');
        let (header, payload, _signature) = (parts.next()?, parts.next()?, parts.next().filter(|it| !it.is_empty())?);
        if parts.next().is_some() {
            return None;
        }
        let header: Header = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let Issued { iss } = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        let is_sound = header.crit.is_none()
            && algorithm(&header.alg).is_some()
            && header.kid.as_ref().is_none_or(|id| id.len() <= LONGEST_KEY_ID)
            && (1..=tenancy::issuer::MAX_TEXT).contains(&iss.len())
            && !iss.chars().any(char::is_control);
        is_sound.then_some(Self { text, header, issuer: iss })
    }

    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    pub(super) fn text(&self) -> &str {
        self.text
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        // It was looked at when the token was read.
        algorithm(&self.header.alg).unwrap_or(Algorithm::EdDSA)
    }
}

/// The algorithms that are taken: with public keys, and not more of them than are in use.
fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "RS256" => Some(Algorithm::RS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn token(header: &serde_json::Value, payload: &serde_json::Value) -> String {
        let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(header), part(payload))
    }

    #[test]
    fn what_no_issuer_of_ours_would_write_is_not_read() {
        let (header, payload) = (json!({ "alg": "RS256", "kid": "k" }), json!({ "iss": "https://a.test" }));
        let good = token(&header, &payload);
        assert_eq!(Unproven::read(&good).unwrap().issuer(), "https://a.test");
        for bad_header in [
            json!({ "alg": "none" }),
            json!({ "alg": "HS256" }),
            json!({ "alg": "rs256" }),
            json!({ "alg": "PS256" }),
            json!({}),
            json!({ "alg": "RS256", "crit": ["exp"], "exp": 1 }),
            json!({ "alg": "RS256", "kid": 7 }),
            json!({ "alg": "RS256", "kid": "k".repeat(257) }),
        ] {
            assert!(Unproven::read(&token(&bad_header, &payload)).is_none(), "{bad_header}");
        }
        for bad_payload in
            [json!({}), json!({ "iss": "" }), json!({ "iss": ["a"] }), json!({ "iss": "a\u{0}" }), json!([])]
        {
            assert!(Unproven::read(&token(&header, &bad_payload)).is_none(), "{bad_payload}");
        }
        let unsigned = good.trim_end_matches("c2ln");
        let (long, five) = (format!("{good}{}", "A".repeat(LONGEST)), format!("{good}.x.y"));
        for bad in
            ["", ".", "..", "a.b.c", unsigned, unsigned.trim_end_matches('.'), &long, &five, &format!("{good}=.")]
        {
            assert!(Unproven::read(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(header in "\\PC{0,60}", payload in "\\PC{0,60}", text in "\\PC{0,120}") {
            let _ = Unproven::read(&text);
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let _ = Unproven::read(&format!("{}.{}.x", part(&header), part(&payload)));
        }
    }
}
