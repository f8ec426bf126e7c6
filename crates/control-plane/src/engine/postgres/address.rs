//! The address by which data planes reach a server, where it is another than its admin's: `host:port`, behind which may stand
//! how the connection is encrypted, as in an admin URL.

use std::str::FromStr;

use url::Url;

use super::QUERY;
use crate::engine::EngineError;

/// Longest text of an address.
const LONGEST: usize = 500;

/// Where a tenant's URL leads to, in place of where the admin's does.
#[derive(Clone, Debug)]
pub(super) struct DataAddress(Url);

impl DataAddress {
    /// Has a URL lead there.
    pub(super) fn put_into(&self, url: &mut Url) {
        // Neither fails for a URL with a host, as either is.
        let _ = url.set_host(self.0.host_str());
        let _ = url.set_port(self.0.port());
        if self.0.query().is_some() {
            url.set_query(self.0.query());
        }
    }
}

impl FromStr for DataAddress {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        let url = (text.len() <= LONGEST).then(|| Url::parse(&format!("postgres://{text}")).ok()).flatten();
        let url = url.filter(|url| {
            let is_host =
                url.host_str().is_some_and(|host| !host.is_empty() && !host.to_ascii_lowercase().starts_with("%2f"));
            is_host
                && url.port().is_some_and(|port| port > 0)
                && url.username().is_empty()
                && url.password().is_none()
                && !text.contains('@')
                && matches!(url.path(), "" | "/")
                && url.fragment().is_none()
                && url.query_pairs().all(|(key, _)| QUERY.contains(&key.as_ref()))
        });
        url.map(Self).ok_or_else(|| {
            EngineError::refused("a data address is host:port, with ?sslmode= and sslrootcert= behind it at most")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_the_data_address_with_its_own_login() {
        let put = |address: &str| {
            let mut url = Url::parse("postgres://role:word@db.internal/fh_x?sslmode=verify-full").unwrap();
            address.parse::<DataAddress>().unwrap().put_into(&mut url);
            String::from(url)
        };
        assert_eq!(put("pooler:6432"), "postgres://role:word@pooler:6432/fh_x?sslmode=verify-full");
        assert_eq!(put("[::1]:6432?sslmode=disable"), "postgres://role:word@[::1]:6432/fh_x?sslmode=disable");
    }

    #[test]
    fn what_is_no_host_and_port_is_refused() {
        let long = format!("{}:1", "a".repeat(LONGEST));
        for text in [
            "",
            "pooler",
            "pooler:0",
            ":6432",
            "u@pooler:6432",
            "u:p@pooler:6432",
            "pooler:6432/postgres",
            "pooler:6432?user=x",
            "%2Ftmp:6432",
            "pooler:6432#x",
            "postgres://pooler:6432",
            &long,
        ] {
            assert!(text.parse::<DataAddress>().is_err(), "{text:?}");
        }
    }
}
