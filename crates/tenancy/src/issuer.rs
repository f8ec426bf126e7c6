//! Who else may say who calls: issuers of signed tokens (JWT, RFC 7519), such as an enterprise's own OpenID Connect provider.
//!
//! A tenant's issuer speaks for that tenant alone, whatever its tokens claim.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use url::{Host, Url};
use utoipa::ToSchema;

use crate::audit::READ_SCOPE;

/// Most issuers that a tenant may have.
pub const MAX_ISSUERS: usize = 4;
/// Longest text of an issuer's description, in bytes.
pub const MAX_TEXT: usize = 512;

/// An issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// What its tokens say in `iss`, letter by letter.
    #[schema(example = "https://login.acme.test/")]
    pub issuer: String,
    /// Where it shows its public keys (JWKS, RFC 7517).
    #[schema(example = "https://login.acme.test/keys")]
    pub jwks_url: String,
    /// Its tokens are for us if their `aud` says this.
    #[schema(example = "pets")]
    pub audience: String,
    /// The most that its tokens may do.
    pub scopes: Vec<String>,
    /// The claim that says what a token may do: a text of words, or a list.
    #[serde(default = "Issuer::scope_claim")]
    pub scope_claim: String,
    /// What a token may do that has no such claim; nothing unless told.
    #[serde(default)]
    pub default_scopes: Vec<String>,
}

/// What is wrong with an issuer's description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {reason}")]
pub struct InvalidIssuer {
    /// The field.
    pub field: &'static str,
    /// What it must be.
    pub reason: String,
}

impl Issuer {
    /// The claim of OAuth 2 (RFC 8693).
    pub fn scope_claim() -> String {
        "scope".to_owned()
    }

    /// Whether it may be trusted as it is described. `allow_private`: its keys may be at an address of a private network,
    /// and without TLS.
    pub fn check(&self, allow_private: bool, scopes: &[&str]) -> Result<(), InvalidIssuer> {
        let invalid = |field, reason: &str| Err(InvalidIssuer { field, reason: reason.to_owned() });
        let texts = [
            ("issuer", &self.issuer),
            ("jwks_url", &self.jwks_url),
            ("audience", &self.audience),
            ("scope_claim", &self.scope_claim),
        ];
        for (field, text) in texts {
            if !(1..=MAX_TEXT).contains(&text.len()) || text.chars().any(char::is_control) {
                return invalid(field, "must have 1 to 512 bytes, and no control characters");
            }
        }
        if let Err(reason) = check_url(&self.jwks_url, allow_private) {
            return invalid("jwks_url", reason);
        }
        for (field, named) in [("scopes", &self.scopes), ("default_scopes", &self.default_scopes)] {
            for (at, scope) in named.iter().enumerate() {
                if !scopes.contains(&scope.as_str()) && scope != READ_SCOPE {
                    let all = [scopes, &[READ_SCOPE]].concat().join(", ");
                    return invalid(field, &format!("may have the product's scopes alone, and Freehold's own: {all}"));
                }
                if named[..at].contains(scope) {
                    return invalid(field, "names a scope twice");
                }
            }
        }
        if self.default_scopes.iter().any(|scope| !self.scopes.contains(scope)) {
            return invalid("default_scopes", "may have none that is not in `scopes`");
        }
        Ok(())
    }
}

/// Whether keys may be asked for at this URL: by https, and not at an address of a private network.
pub fn check_url(text: &str, allow_private: bool) -> Result<Url, &'static str> {
    let url = Url::parse(text).map_err(|_| "must be a URL, such as https://login.example.com/keys")?;
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("must have no user, password or fragment");
    }
    if allow_private && url.scheme() == "http" {
        return Ok(url);
    }
    if url.scheme() != "https" {
        return Err("must begin with https://");
    }
    let is_private = match url.host() {
        None => true,
        Some(Host::Ipv4(address)) => !is_public(address.into()),
        Some(Host::Ipv6(address)) => !is_public(address.into()),
        // What any other name leads to is seen by whoever dials it.
        // Of one's own network: a name of one label, and those of RFC 6761 and 6762.
        Some(Host::Domain(name)) => name.rsplit_once('.').is_none_or(|(_, last)| matches!(last, "localhost" | "local")),
    };
    if is_private && !allow_private { Err("must not lead into a private network") } else { Ok(url) }
}

/// Whether an address is one of the public internet: not private, local, or of any block that leads to those (IANA's
/// special-purpose registries, RFC 6890).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || matches!((a, b, c), (0, ..) | (192, 0, 0) | (192, 88, 99))
        // Shared by carriers; benchmarks; multicast and what is reserved.
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && matches!(b, 18 | 19))
        || a >= 224;
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let low = Ipv4Addr::from((u32::from(segments[6]) << 16) | u32::from(segments[7]));
    match segments {
        // An IPv4 address in another dress: mapped, translated (NAT64), 6to4.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => is_public_v4(low),
        [0x2002, high, low, ..] => is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low))),
        // Teredo, documentation, benchmarks, ORCHID.
        [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
        // All that is given out is of 2000::/3.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable() -> Issuer {
        Issuer {
            issuer: "https://login.acme.test/".into(),
            jwks_url: "https://login.acme.test/keys".into(),
            audience: "pets".into(),
            scopes: vec!["pets:read".into()],
            scope_claim: Issuer::scope_claim(),
            default_scopes: Vec::new(),
        }
    }

    #[test]
    fn each_bad_field_is_named() {
        let scopes = ["pets:read", "pets:write"];
        assert_eq!(usable().check(false, &scopes), Ok(()));
        let bad = |change: fn(&mut Issuer)| {
            let mut issuer = usable();
            change(&mut issuer);
            issuer.check(false, &scopes).unwrap_err().field
        };
        assert_eq!(bad(|it| it.issuer.clear()), "issuer");
        assert_eq!(bad(|it| it.audience = "x\n".into()), "audience");
        assert_eq!(bad(|it| it.audience = "x".repeat(513)), "audience");
        assert_eq!(bad(|it| it.scopes.push("pets:eat".into())), "scopes");
        assert_eq!(bad(|it| it.scopes.push("pets:read".into())), "scopes");
        assert_eq!(bad(|it| it.default_scopes.push("pets:write".into())), "default_scopes");
        assert_eq!(bad(|it| it.jwks_url = "http://login.acme.test/keys".into()), "jwks_url");
    }

    #[test]
    fn keys_are_asked_for_in_public_and_by_tls_alone() {
        for bad in [
            "",
            "keys",
            "file:///etc/passwd",
            "http://login.acme.test/keys",
            "https://user:secret@login.acme.test/keys",
            "https://login.acme.test/keys#x",
            "https://localhost/keys",
            "https://registry/keys",
            "https://printer.local/keys",
            "https://127.0.0.1/keys",
            "https://2130706433/keys",
            "https://0x7f.1/keys",
            "https://169.254.169.254/latest",
            "https://10.0.0.1/keys",
            "https://[::1]/keys",
            "https://[::ffff:10.0.0.1]/keys",
            "https://[fd00::1]/keys",
        ] {
            assert!(check_url(bad, false).is_err(), "{bad}");
        }
        assert!(check_url("https://login.acme.test:8443/keys?v=1", false).is_ok());
        assert!(check_url("https://9.9.9.9/keys", false).is_ok());
        assert!(check_url("http://127.0.0.1:1234/keys", true).is_ok());
        assert!(check_url("ftp://127.0.0.1/keys", true).is_err());
    }

    #[test]
    fn private_addresses_are_known_in_every_dress() {
        let public = ["9.9.9.9", "100.63.0.1", "198.20.0.1", "2606:4700::1", "64:ff9b::909:909", "2002:909:909::1"];
        for address in public {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:a00:1::1",
        ];
        for address in private {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }
}
