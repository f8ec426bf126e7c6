//! Where a request comes from, and for which host: as the nearest machine says it that is not a trusted proxy. What anybody
//! else says of it is not read.

mod forwarded;

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
    /// `Forwarded` (RFC 7239). One that breaks its grammar says nothing.
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
            ForwardedBy::Forwarded => forwarded::said(request.headers()),
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
    let hops = elements(headers, &X_FORWARDED_FOR).into_iter().rev().take(MOST_HOPS).map(address).collect();
    let hosts = elements(headers, &X_FORWARDED_HOST).into_iter().filter_map(|host| host.parse().ok()).collect();
    (hops, hosts)
}

/// A header's elements, in their order, over all of its lines. A line that is no text is an element that is no address.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?"));
    lines.flat_map(|line| line.split(',').map(str::trim)).collect()
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
mod tests;
