//! Where a request comes from, and for which host: as the nearest machine says it that is not a trusted proxy. What anybody
//! else says of it is not read.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Machines that are read at most, the nearest first.
const MOST_HOPS: usize = 32;

/// `[listen.proxies]`: who may say where a request comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxiesConfig {
    /// Networks of the proxies in front of this service, such as `10.0.0.0/8`. None are trusted unless told.
    pub trusted: Vec<IpNet>,
    /// What they set. The other way of saying it is not read: whoever sends a request may have set it.
    pub header: ForwardedBy,
}

/// How proxies say for whom they forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedBy {
    /// `X-Forwarded-For` and `X-Forwarded-Host`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl ProxiesConfig {
    /// The client's address, none where there is no socket. A host that a trusted proxy says takes the place of the
    /// request's own.
    pub(super) fn settle(&self, request: &mut Request) -> Option<IpAddr> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>()?.0.ip().to_canonical();
        if !self.trusts(peer) {
            return Some(peer);
        }
        let (hops, hosts) = match self.header {
            ForwardedBy::XForwarded => x_forwarded(request.headers()),
            ForwardedBy::Forwarded => forwarded(request.headers()),
        };
        if !hosts.is_empty() {
            replace_host(request, hosts);
        }
        let mut client = peer;
        for hop in hops {
            // What a trusted proxy could not say, nobody else is asked.
            let Some(address) = hop else { break };
            client = address;
            if !self.trusts(client) {
                break;
            }
        }
        Some(client)
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

/// Addresses, the nearest first; none in the place of what is no address. Hosts as they were said: if they are several, it is
/// for whoever reads them to refuse that, like several `Host` headers.
type Said = (Vec<Option<IpAddr>>, Vec<HeaderValue>);

fn x_forwarded(headers: &HeaderMap) -> Said {
    let hops = elements(headers, &X_FORWARDED_FOR, ',').into_iter().rev().take(MOST_HOPS).map(address).collect();
    let hosts = elements(headers, &X_FORWARDED_HOST, ',').into_iter().filter_map(|host| host.parse().ok()).collect();
    (hops, hosts)
}

fn forwarded(headers: &HeaderMap) -> Said {
    let (mut hops, mut nearest_host) = (Vec::new(), None);
    for element in elements(headers, &header::FORWARDED, ',').into_iter().rev().take(MOST_HOPS) {
        let (mut hop, mut host) = (None, None);
        for pair in split(element, ';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match name.trim() {
                name if name.eq_ignore_ascii_case("for") => hop = address(value),
                name if name.eq_ignore_ascii_case("host") => host = value.parse().ok(),
                _ => {}
            }
        }
        if hops.is_empty() {
            nearest_host = host;
        }
        hops.push(hop);
    }
    (hops, nearest_host.into_iter().collect())
}

/// A header's elements, in their order, over all of its lines. A line that is no text is an element that is no address.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName, separator: char) -> Vec<&'a str> {
    headers.get_all(name).iter().flat_map(|line| split(line.to_str().unwrap_or("?"), separator)).collect()
}

/// Splits where the separator is not within quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut is_quoted = false;
    let pieces = text.split(|c| {
        is_quoted ^= c == '"';
        c == separator && !is_quoted
    });
    pieces.map(str::trim).collect()
}

/// An address, perhaps with a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let address = text.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip())).or_else(bare);
    address.map(|address: IpAddr| address.to_canonical())
}

fn replace_host(request: &mut Request, hosts: Vec<HeaderValue>) {
    request.headers_mut().remove(header::HOST);
    for host in hosts {
        request.headers_mut().append(header::HOST, host);
    }
    // An absolute target, or HTTP/2's authority, would come before the header.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn settled(header: ForwardedBy, peer: &str, headers: &[(&str, &str)]) -> (String, Vec<String>) {
        let proxies =
            ProxiesConfig { trusted: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()], header };
        let mut request = Request::builder().uri("http://own.test/path?q").header("host", "own.test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 4711)));
        let client = proxies.settle(&mut request).unwrap().to_string();
        assert_eq!(request.uri().path_and_query().unwrap(), "/path?q");
        let authority = request.uri().authority().map(ToString::to_string);
        let hosts = request.headers().get_all("host").iter().map(|host| host.to_str().unwrap().to_owned());
        (client, authority.into_iter().chain(hosts).collect())
    }

    #[test]
    fn only_trusted_proxies_say_where_a_request_comes_from() {
        let client = |peer: &str, said: &str| settled(ForwardedBy::XForwarded, peer, &[("x-forwarded-for", said)]).0;
        for (peer, said, expected) in [
            ("192.0.2.9", "198.51.100.1", "192.0.2.9"),
            ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("::ffff:10.0.0.1", "198.51.100.1", "198.51.100.1"),
            ("10.0.0.1", "198.51.100.1, 10.2.2.2", "198.51.100.1"),
            // The client wrote the first itself.
            ("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.2.2.2", "198.51.100.1"),
            ("10.0.0.1", "10.9.9.9, 10.2.2.2", "10.9.9.9"),
            ("10.0.0.1", "198.51.100.1:8080", "198.51.100.1"),
            ("fd00::1", "2001:db8::7", "2001:db8::7"),
            ("10.0.0.1", "[2001:db8::7]:443", "2001:db8::7"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "unknown, 10.2.2.2", "10.2.2.2"),
            ("10.0.0.1", "198.51.100.1, what, 10.2.2.2", "10.2.2.2"),
        ] {
            assert_eq!(client(peer, said), expected, "{said:?} by {peer}");
        }
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "198.51.100.1")];
        assert_eq!(settled(ForwardedBy::XForwarded, "10.0.0.1", &lines).0, "198.51.100.1");
        let many = vec!["10.1.1.1"; 100].join(",");
        assert_eq!(client("10.0.0.1", &format!("198.51.100.1,{many}")), "10.1.1.1");
    }

    #[test]
    fn forwarded_is_read_where_it_is_what_proxies_set() {
        let said = r#"for=1.1.1.1;host=forged.test, For="[2001:db8::7]:443";proto=https;host="pets.test:8800;,", for=10.2.2.2;Host=acme.test"#;
        let headers = [("forwarded", said), ("x-forwarded-for", "9.9.9.9"), ("x-forwarded-host", "other.test")];
        let (client, hosts) = settled(ForwardedBy::Forwarded, "10.0.0.1", &headers);
        assert_eq!((client.as_str(), hosts), ("2001:db8::7", vec!["acme.test".to_owned()]));
        let (client, hosts) = settled(ForwardedBy::XForwarded, "10.0.0.1", &headers);
        assert_eq!((client.as_str(), hosts), ("9.9.9.9", vec!["other.test".to_owned()]));
        let hidden = settled(ForwardedBy::Forwarded, "10.0.0.1", &[("forwarded", "for=_hidden, for=unknown")]);
        assert_eq!(hidden.0, "10.0.0.1");
    }

    #[test]
    fn only_trusted_proxies_say_the_host() {
        let hosts = |peer: &str, said: &str| settled(ForwardedBy::XForwarded, peer, &[("x-forwarded-host", said)]).1;
        assert_eq!(hosts("192.0.2.9", "acme.test"), ["own.test", "own.test"]);
        assert_eq!(hosts("10.0.0.1", "acme.test"), ["acme.test"]);
        assert_eq!(hosts("10.0.0.1", "acme.test, globex.test"), ["acme.test", "globex.test"]);
    }
}
