//! A tenant's name in host names, paths and headers.
//!
//! A slug is a DNS label, so that `acme.example.com` and `/acme/api` name the same tenant. It never names a database:
//! those have opaque names of their own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Shortest slug, in bytes.
pub const MIN_LENGTH: usize = 3;
/// Longest slug, in bytes.
pub const MAX_LENGTH: usize = 40;

/// Names that a product or its operator wants for itself. Sorted, for the binary search.
const RESERVED: &[&str] = &[
    "account",
    "accounts",
    "admin",
    "administrator",
    "api",
    "app",
    "assets",
    "auth",
    "billing",
    "blog",
    "cdn",
    "console",
    "control",
    "dashboard",
    "demo-internal",
    "docs",
    "ftp",
    "healthz",
    "help",
    "imap",
    "internal",
    "localhost",
    "login",
    "logout",
    "mail",
    "metrics",
    "mx1",
    "mx2",
    "ns1",
    "ns2",
    "oauth",
    "openapi",
    "ops",
    "pop",
    "readyz",
    "root",
    "security",
    "signup",
    "smtp",
    "static",
    "status",
    "support",
    "system",
    "test-internal",
    "v1",
    "well-known",
    "www",
    "www1",
    "www2",
];

/// `[a-z][a-z0-9-]{1,38}[a-z0-9]` without `--`, and not reserved.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[a-z][a-z0-9-]{1,38}[a-z0-9]$", example = "acme")]
pub struct Slug(Box<str>);

/// Why a text is no slug. The message says what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSlug {
    /// Too short or too long.
    #[error("a slug has {MIN_LENGTH} to {MAX_LENGTH} characters: choose one of that length")]
    Length,
    /// The first character is not a lower-case letter.
    #[error("a slug begins with a lower-case letter (a-z)")]
    Start,
    /// The last character is a hyphen.
    #[error("a slug ends with a lower-case letter or a digit, not with a hyphen")]
    End,
    /// Some character is not allowed.
    #[error("a slug has lower-case letters (a-z), digits and hyphens only")]
    Character,
    /// Two hyphens in a row, as in `xn--`.
    #[error("a slug has no two hyphens in a row")]
    DoubleHyphen,
    /// On the reserved list.
    #[error("this slug is reserved: choose another")]
    Reserved,
}

impl Slug {
    /// The slug as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = InvalidSlug;

    fn from_str(text: &str) -> Result<Self, InvalidSlug> {
        let bytes = text.as_bytes();
        if !(MIN_LENGTH..=MAX_LENGTH).contains(&bytes.len()) {
            return Err(InvalidSlug::Length);
        }
        if !bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-') {
            return Err(InvalidSlug::Character);
        }
        if !bytes[0].is_ascii_lowercase() {
            return Err(InvalidSlug::Start);
        }
        if bytes[bytes.len() - 1] == b'-' {
            return Err(InvalidSlug::End);
        }
        if text.contains("--") {
            return Err(InvalidSlug::DoubleHyphen);
        }
        if RESERVED.binary_search(&text).is_ok() {
            return Err(InvalidSlug::Reserved);
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Slug {
    type Error = InvalidSlug;

    fn try_from(text: String) -> Result<Self, InvalidSlug> {
        text.parse()
    }
}

impl From<Slug> for String {
    fn from(slug: Slug) -> Self {
        slug.0.into()
    }
}

impl AsRef<str> for Slug {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_reserved_list_is_sorted_so_that_the_search_finds_every_word() {
        assert!(RESERVED.is_sorted());
        for word in RESERVED {
            assert!(word.parse::<Slug>().is_err(), "{word} must be refused");
        }
    }

    #[test]
    fn each_rule_names_itself() {
        for (text, why) in [
            ("ab", InvalidSlug::Length),
            ("", InvalidSlug::Length),
            ("1ab", InvalidSlug::Start),
            ("-ab", InvalidSlug::Start),
            ("ab-", InvalidSlug::End),
            ("a--b", InvalidSlug::DoubleHyphen),
            ("Acme", InvalidSlug::Character),
            ("ac.me", InvalidSlug::Character),
            ("acmé", InvalidSlug::Character),
            ("www", InvalidSlug::Reserved),
        ] {
            assert_eq!(text.parse::<Slug>(), Err(why), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_has_the_form_is_a_slug_and_survives_json(text in "[a-z][a-z0-9-]{1,38}[a-z0-9]") {
            prop_assume!(!text.contains("--") && RESERVED.binary_search(&text.as_str()).is_err());
            let slug: Slug = text.parse().unwrap();
            let json = serde_json::to_string(&slug).unwrap();
            prop_assert_eq!(serde_json::from_str::<Slug>(&json).unwrap(), slug);
        }

        #[test]
        fn whatever_is_a_slug_is_a_dns_label(text in "\\PC{0,48}") {
            if let Ok(slug) = text.parse::<Slug>() {
                let s = slug.as_str();
                prop_assert!(s.len() <= 63 && s.is_ascii() && !s.starts_with('-') && !s.ends_with('-'));
                prop_assert_eq!(s.to_ascii_lowercase(), s);
                prop_assert!(!s.contains("--") && !s.contains('.') && !s.contains('/'));
            }
        }
    }
}
