//! What a tenant is looked up by where no API key says it: its id, its slug, a custom host, an issuer.

use tenancy::feed::RouteQuery;
use tenancy::route::Route;
use tenancy::{Slug, TenantId};

/// One name of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lookup {
    Tenant(TenantId),
    Slug(Box<str>),
    Host(Box<str>),
    Issuer(Box<str>),
}

impl Lookup {
    /// By a text that is an id or a slug; none if it can be neither.
    pub(crate) fn of_slug_or_id(text: &str) -> Option<Self> {
        let slug = || text.parse::<Slug>().is_ok().then(|| Self::Slug(text.into()));
        text.parse().map(Self::Tenant).ok().or_else(slug)
    }

    /// All that a tenant is found by.
    pub(super) fn all_of(route: &Route) -> impl Iterator<Item = Self> {
        let hosts = route.hosts.iter().map(|host| Self::Host(host.as_str().into()));
        let issuers = route.issuers.iter().map(|issuer| Self::Issuer(issuer.issuer.as_str().into()));
        [Self::Tenant(route.tenant), Self::Slug(route.slug.as_str().into())].into_iter().chain(hosts).chain(issuers)
    }

    /// Whether the tenant still has this name.
    pub(super) fn is_of(&self, route: &Route) -> bool {
        match self {
            Self::Tenant(tenant) => *tenant == route.tenant,
            Self::Slug(slug) => **slug == *route.slug.as_str(),
            Self::Host(host) => route.hosts.iter().any(|known| **known == **host),
            Self::Issuer(issuer) => route.issuers.iter().any(|known| *known.issuer == **issuer),
        }
    }

    pub(super) fn query(&self) -> RouteQuery {
        let mut query = RouteQuery::default();
        match self {
            Self::Tenant(tenant) => query.tenant = Some(*tenant),
            Self::Slug(slug) => query.slug = Some(slug.to_string()),
            Self::Host(host) => query.host = Some(host.to_string()),
            Self::Issuer(issuer) => query.issuer = Some(issuer.to_string()),
        }
        query
    }
}
