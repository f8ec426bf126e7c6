//! What a proven token claims, within bounds.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};
use tenancy::Issuer;

use crate::routes::Lookup;

/// Tenants at most that a token speaks for.
const MOST_TENANTS: usize = 64;
/// Longest subject, in bytes.
const LONGEST_SUBJECT: usize = 256;

/// The claims of RFC 7519 that are read, and those that an issuer was described by.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    iss: String,
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// When a token counts.
pub(super) struct Times {
    pub(super) expires_at: DateTime<Utc>,
    pub(super) not_before: Option<DateTime<Utc>>,
    pub(super) issued_at: Option<DateTime<Utc>>,
}

/// A claim that cannot be taken as it is.
#[derive(Debug, thiserror::Error)]
#[error("its claim {0:?} is none that is taken")]
pub(crate) struct InvalidClaim(String);

impl Claims {
    pub(super) fn times(&self) -> Result<Times, InvalidClaim> {
        let optional = |name, value: Option<f64>| value.map(|value| time(name, value)).transpose();
        Ok(Times {
            expires_at: time("exp", self.exp)?,
            not_before: optional("nbf", self.nbf)?,
            issued_at: optional("iat", self.iat)?,
        })
    }

    /// `jwt:<issuer>|<subject>`: subjects are an issuer's own.
    pub(super) fn subject(&self) -> Result<String, InvalidClaim> {
        let is_sound = (1..=LONGEST_SUBJECT).contains(&self.sub.len()) && !self.sub.chars().any(char::is_control);
        if is_sound { Ok(format!("jwt:{}|{}", self.iss, self.sub)) } else { Err(InvalidClaim("sub".to_owned())) }
    }

    /// What it may do: of what it claims, what its issuer may give.
    pub(super) fn scopes(&self, issuer: &Issuer) -> Vec<String> {
        let claimed: Vec<&str> = match self.others.get(&issuer.scope_claim) {
            Some(Value::String(words)) => words.split_ascii_whitespace().collect(),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            // A claim of another form gives nothing; none at all, what was said for that.
            Some(_) => Vec::new(),
            None => return issuer.default_scopes.clone(),
        };
        issuer.scopes.iter().filter(|scope| claimed.contains(&scope.as_str())).cloned().collect()
    }

    /// The tenants that it speaks for, each by slug or id.
    pub(super) fn tenants(&self, claim: &str) -> Result<Box<[Lookup]>, InvalidClaim> {
        let invalid = || InvalidClaim(claim.to_owned());
        let named: Vec<&str> = match self.others.get(claim) {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) if list.len() <= MOST_TENANTS => {
                list.iter().map(Value::as_str).collect::<Option<_>>().ok_or_else(invalid)?
            }
            Some(_) => return Err(invalid()),
        };
        // A text that can be no tenant's name is nobody's.
        Ok(named.into_iter().filter_map(Lookup::of_slug_or_id).collect())
    }
}

/// Seconds since 1970, which may have a fraction.
fn time(name: &str, seconds: f64) -> Result<DateTime<Utc>, InvalidClaim> {
    let invalid = || InvalidClaim(name.to_owned());
    // Up to the year 9999; what is no number is outside of it too.
    if !(0.0..253_402_300_800.0).contains(&seconds) {
        return Err(invalid());
    }
    #[allow(clippy::cast_possible_truncation, reason = "within the bounds above")]
    DateTime::from_timestamp(seconds.floor() as i64, 0).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(others: &Value) -> Claims {
        let mut all = json!({ "iss": "https://a.test", "sub": "ann", "exp": 1_000.9 });
        all.as_object_mut().unwrap().extend(others.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_token_may_do_what_it_claims_and_its_issuer_may_give() {
        let issuer = Issuer {
            issuer: String::new(),
            jwks_url: String::new(),
            audience: String::new(),
            scopes: vec!["read".into(), "write".into()],
            scope_claim: "scope".into(),
            default_scopes: vec!["read".into()],
        };
        for (claimed, expected) in [
            (json!({}), vec!["read"]),
            (json!({ "scope": "openid write  erase" }), vec!["write"]),
            (json!({ "scope": ["read", "write", 3] }), vec!["read", "write"]),
            (json!({ "scope": "" }), vec![]),
            (json!({ "scope": 7 }), vec![]),
            (json!({ "scope": null }), vec![]),
            (json!({ "scp": "write" }), vec!["read"]),
        ] {
            assert_eq!(claims(&claimed).scopes(&issuer), expected, "{claimed}");
        }
    }

    #[test]
    fn tenants_subjects_and_times_are_bounded() {
        let tenants = |value: Value| claims(&json!({ "tenant": value })).tenants("tenant").map(|it| it.len()).ok();
        assert_eq!(claims(&json!({})).tenants("tenant").unwrap().len(), 0);
        assert_eq!(tenants(json!("acme")), Some(1));
        assert_eq!(tenants(json!(["acme", "01a20d1d-46bf-7645-9071-ab07ec72e333", "Not A Slug", ""])), Some(2));
        assert_eq!(tenants(json!(vec!["acme"; 64])), Some(64));
        assert_eq!(tenants(json!(vec!["acme"; 65])), None);
        assert_eq!(tenants(json!(["acme", 7])), None);
        assert_eq!(tenants(json!({ "acme": true })), None);
        assert_eq!(claims(&json!({})).subject().unwrap(), "jwt:https://a.test|ann");
        for bad in ["", "a\nb", &"x".repeat(257)] {
            assert!(claims(&json!({ "sub": bad })).subject().is_err());
        }
        assert_eq!(claims(&json!({})).times().unwrap().expires_at.timestamp(), 1_000);
        for bad in [-1.0, 1e300] {
            assert!(claims(&json!({ "exp": bad })).times().is_err());
            assert!(claims(&json!({ "nbf": bad })).times().is_err());
        }
    }
}
