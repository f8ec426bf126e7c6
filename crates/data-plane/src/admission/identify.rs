//! Identify: which tenant does the request name? It only parses; nothing is looked up, and no name is believed.

use std::sync::Arc;

use axum::extract::Request;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use service::Problem;
use tenancy::Slug;

use crate::routes::Lookup;

const X_TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");
/// Names in one request that are read at most: a host, a path, and a header or two.
const MOST_NAMES: usize = 8;

/// A name that no tenant has.
const NOBODY: &str = "\u{0}";

/// How requests name tenants here.
#[derive(Clone, Debug)]
pub(crate) struct Naming {
    base_domain: Arc<str>,
    /// The mount with its slash and none at its end: `/api`.
    mount: Arc<str>,
}

/// What the request calls its tenant. Whether such a tenant exists is not known here, nor ever asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A slug, or a text that is none and so nobody's.
    Label(Box<str>),
    /// A slug or an id: only the header takes both.
    Header(Box<str>),
    /// A custom host.
    Host(Box<str>),
}

impl Name {
    /// As it came.
    pub(super) fn text(&self) -> &str {
        let (Self::Label(text) | Self::Header(text) | Self::Host(text)) = self;
        text
    }

    /// What a tenant of this name is looked up by; none for a text that is nobody's.
    pub(super) fn lookup(&self) -> Option<Lookup> {
        let slug = |text: &str| text.parse::<Slug>().is_ok().then(|| Lookup::Slug(text.into()));
        match self {
            Self::Label(label) => slug(label),
            Self::Header(text) => Lookup::of_slug_or_id(text),
            Self::Host(host) => (**host != *NOBODY).then(|| Lookup::Host(host.clone())),
        }
    }
}

/// A request whose names were read. It goes from the request's way in to admission.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identified {
    pub(super) names: Vec<Name>,
}

impl Naming {
    pub(crate) fn new(base_domain: &str, mount: &str) -> Self {
        Self { base_domain: base_domain.into(), mount: format!("/{}", mount.trim_matches('/')).into() }
    }

    /// Reads the names, notes them in the request, and leaves of its path what is below the mount. A request for no path of
    /// the product is given back. Nothing else is refused: who shows no credential gets the same answer whatever the
    /// request names.
    #[allow(clippy::result_large_err, reason = "both are the request")]
    pub(crate) fn identify(&self, mut request: Request) -> Result<Request, Request> {
        let Some((segment, below)) = self.split_path(request.uri()) else { return Err(request) };
        let mut identified = Identified::default();
        identified.names.extend(self.named_by_hosts(request.uri(), request.headers()));
        identified.names.extend(segment.map(|segment| Name::Label(segment.into())));
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.path_and_query = Some(below);
        // An absolute target stays one.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        for value in request.headers().get_all(X_TENANT_ID) {
            // Bytes that are no text name nobody.
            let text = value.to_str().unwrap_or(NOBODY).trim();
            if identified.names.len() == MOST_NAMES {
                identified.names[MOST_NAMES - 1] = Name::Header(NOBODY.into());
                break;
            }
            identified.names.push(Name::Header(text.into()));
        }
        request.extensions_mut().insert(identified);
        Ok(request)
    }

    /// An absolute target, or HTTP/2's authority, is the host; a Host header beside it is ignored (RFC 9112, 3.2.2).
    fn named_by_hosts(&self, uri: &Uri, headers: &HeaderMap) -> Option<Name> {
        if let Some(authority) = uri.authority() {
            return self.named_by_host(authority.host().as_bytes());
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let first = hosts.next()?;
        // Two of them contradict each other, and name nobody.
        if hosts.next().is_some() { Some(Name::Host(NOBODY.into())) } else { self.named_by_host(first.as_bytes()) }
    }

    fn named_by_host(&self, host: &[u8]) -> Option<Name> {
        let Ok(host) = std::str::from_utf8(host) else { return Some(Name::Host(NOBODY.into())) };
        let host = without_port(host);
        // The root's dot; a second one is no host name.
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.is_empty() || host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() {
            return None;
        }
        let host = host.to_ascii_lowercase();
        if host == "localhost" || *host == *self.base_domain {
            return None;
        }
        let label = host.strip_suffix(&*self.base_domain).and_then(|rest| rest.strip_suffix('.'));
        Some(match label {
            Some(label) => Name::Label(label.into()),
            None => Name::Host(host.into()),
        })
    }

    /// `/acme/api/pets` and `/api/pets` as `/pets`, and the segment before the mount if there is one. Segments are compared
    /// as they came: an encoded one is nobody's.
    fn split_path<'a>(&self, uri: &'a Uri) -> Option<(Option<&'a str>, PathAndQuery)> {
        let path = uri.path();
        let (segment, at) = if self.is_below(path) {
            (None, 0)
        } else {
            let segment = path.strip_prefix('/')?.split('/').next().filter(|segment| !segment.is_empty())?;
            (Some(segment), 1 + segment.len())
        };
        if !self.is_below(&path[at..]) {
            return None;
        }
        let below = &uri.path_and_query()?.as_str()[at + self.mount.len()..];
        let below = if below.starts_with('/') { below.parse() } else { format!("/{below}").parse() };
        Some((segment, below.ok()?))
    }

    fn is_below(&self, path: &str) -> bool {
        path.strip_prefix(&*self.mount).is_some_and(|below| below.is_empty() || below.starts_with('/'))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// The request names two tenants. It is said only to those who belong to one of them.
pub(super) fn ambiguous() -> Problem {
    Problem::new(
        StatusCode::BAD_REQUEST,
        "ambiguous-tenant",
        "The request names more than one tenant. Name it once: by host, path, X-Tenant-ID or the credential alone.",
    )
}

#[cfg(test)]
mod tests;
