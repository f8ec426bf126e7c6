//! Tenants as data planes see them: routes, made of the rows that belong to a tenant.
//!
//! Only a tenant that was active has one.

mod found;

use std::collections::{BTreeMap, HashMap};

use futures_util::try_join;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect, QueryTrait, Select};
use tenancy::feed::{Asked, RouteAnswer};
use tenancy::issuer::{Issuer, MAX_TEXT};
use tenancy::route::{Revision, Route, RouteKey};
use tenancy::seal::Sealed;
use tenancy::{Slug, Status};
use uuid::Uuid;

use super::entities::{config, domains, history, issuers, keys, plans, tenants};
use super::{Registry, plan_of, position, slugs};
use found::Found;

/// Longest host name (RFC 1035).
const MAX_HOST: usize = 253;

impl Registry {
    /// The route of the one tenant that is asked for.
    pub(crate) async fn route(&self, asked: &Asked) -> Result<RouteAnswer, DbErr> {
        let (history, found) = match is_asked_for(asked) {
            Some(is_wanted) => routes(self.db(), is_wanted).await?,
            None => (self.history().await?, Vec::new()),
        };
        let (epoch, as_of) = position(&history);
        Ok(RouteAnswer { epoch, as_of, route: found.into_iter().next().and_then(|found| found.route) })
    }
}

/// The condition for the tenant that is asked for; none if no tenant can have such a name.
fn is_asked_for(asked: &Asked) -> Option<Expr> {
    let can_be = |text: &str, most| text.len() <= most && !text.contains('\0');
    match asked {
        Asked::Tenant(tenant) => Some(tenants::Column::Id.eq(tenant.as_uuid())),
        Asked::Key(key) => {
            let owner = keys::Entity::find().filter(keys::Column::Id.eq(key.as_str()));
            Some(is_owner(owner, keys::Column::TenantId))
        }
        Asked::Slug(slug) => slug.parse::<Slug>().is_ok().then(|| slugs::is_of(slug)),
        Asked::Host(host) => can_be(host, MAX_HOST).then(|| {
            let owner = domains::Entity::find().filter(domains::Column::Host.eq(host.as_str()));
            is_owner(owner, domains::Column::TenantId)
        }),
        Asked::Issuer(issuer) => can_be(issuer, MAX_TEXT).then(|| {
            let owner = issuers::Entity::find().filter(issuers::Column::Issuer.eq(issuer.as_str()));
            is_owner(owner, issuers::Column::TenantId)
        }),
    }
}

fn is_owner<E: EntityTrait>(rows: Select<E>, owner: E::Column) -> Expr {
    tenants::Column::Id.in_subquery(rows.select_only().column(owner).into_query())
}

/// A tenant that was found.
pub(crate) struct Routed {
    pub(crate) tenant: Uuid,
    pub(crate) revision: Revision,
    /// None for a tenant that must not be seen.
    pub(crate) route: Option<Route>,
}

/// The tenants that match, by revision, and the history at the same moment.
pub(crate) async fn routes(db: &impl ConnectionTrait, is_wanted: Expr) -> Result<(history::Model, Vec<Routed>), DbErr> {
    let mut found = found::find(db, is_wanted).await?.into_iter();
    let first = found.next().ok_or_else(super::lacks_history)?;
    let history = first.history.clone();
    let mut parts: BTreeMap<(i64, Uuid), Parts> = BTreeMap::new();
    for Found { tenant, plan, server, key, has_more, .. } in std::iter::once(first).chain(found) {
        let Some(tenant) = tenant else { continue };
        let parts = parts.entry((tenant.revision, tenant.id)).or_insert_with(|| Parts {
            tenant,
            plan,
            server,
            keys: Vec::new(),
            has_more,
        });
        parts.keys.extend(key);
    }
    let having_more = parts.values().filter(|parts| parts.has_more && parts.is_visible());
    let mut more = More::of(db, having_more.map(|parts| parts.tenant.id).collect()).await?;
    let routed = parts.into_values().map(|parts| {
        let (tenant, revision) = (parts.tenant.id, Revision(parts.tenant.revision.unsigned_abs()));
        let route = parts.is_visible().then(|| parts.into_route(&mut more)).transpose()?;
        Ok(Routed { tenant, revision, route })
    });
    Ok((history, routed.collect::<Result<_, DbErr>>()?))
}

/// What each tenant's route is made of.
struct Parts {
    tenant: tenants::Model,
    plan: Option<plans::Model>,
    server: Option<String>,
    keys: Vec<keys::Model>,
    has_more: bool,
}

impl Parts {
    fn is_visible(&self) -> bool {
        self.tenant.status.parse::<Status>().is_ok_and(Status::is_visible)
    }

    fn into_route(self, more: &mut More) -> Result<Route, DbErr> {
        let Self { tenant: row, plan, server, keys, .. } = self;
        let id = row.id;
        let damaged = |what: &str| DbErr::Custom(format!("the registry's row of tenant {id} has no {what}"));
        let plan = plan.map(plan_of).ok_or_else(|| damaged("plan"))?;
        let plan = match row.limits {
            Some(own) => plan.with(&serde_json::from_value(own).map_err(|_| damaged("sound limits"))?),
            None => plan,
        };
        Ok(Route {
            tenant: id.into(),
            revision: Revision(row.revision.unsigned_abs()),
            slug: row.slug.parse().map_err(|_| damaged("slug"))?,
            hosts: more.hosts.remove(&id).unwrap_or_default(),
            status: row.status.parse().map_err(|_| damaged("status"))?,
            plan,
            config: more.config.remove(&id).unwrap_or_default(),
            keys: keys.iter().map(route_key).collect::<Result<_, _>>()?,
            issuers: more.issuers.remove(&id).unwrap_or_default(),
            tokens_from: row.tokens_from,
            slug_since: Some(row.slug_since.unwrap_or(row.created_at)),
            schema_version: row.schema_version.unsigned_abs(),
            server: server.ok_or_else(|| damaged("server"))?,
            generation: row.generation.unsigned_abs(),
            reconnects: row.reconnects.unsigned_abs(),
            sealed_url: Sealed::from_stored(row.sealed_url.ok_or_else(|| damaged("database URL"))?),
        })
    }
}

/// What few tenants have, by tenant.
#[derive(Default)]
struct More {
    hosts: HashMap<Uuid, Vec<String>>,
    issuers: HashMap<Uuid, Vec<Issuer>>,
    config: HashMap<Uuid, BTreeMap<String, serde_json::Value>>,
}

impl More {
    async fn of(db: &impl ConnectionTrait, tenants: Vec<Uuid>) -> Result<Self, DbErr> {
        let mut more = Self::default();
        if tenants.is_empty() {
            return Ok(more);
        }
        // All at once: a tenant's first request waits for them. In a box: three statements make a large future.
        let asked = Box::pin(async {
            try_join!(
                domains::Entity::find().filter(domains::Column::TenantId.is_in(tenants.clone())).all(db),
                issuers::Entity::find().filter(issuers::Column::TenantId.is_in(tenants.clone())).all(db),
                config::Entity::find().filter(config::Column::TenantId.is_in(tenants.clone())).all(db),
            )
        });
        let (own_domains, own_issuers, own_config) = asked.await?;
        for domain in own_domains {
            more.hosts.entry(domain.tenant_id).or_default().push(domain.host);
        }
        for row in own_issuers {
            let damaged = |_| DbErr::Custom(format!("the registry's row of issuer {} is damaged", row.name));
            let issuer = serde_json::from_value(row.described.clone()).map_err(damaged)?;
            more.issuers.entry(row.tenant_id).or_default().push(issuer);
        }
        for entry in own_config {
            more.config.entry(entry.tenant_id).or_default().insert(entry.key, entry.value);
        }
        Ok(more)
    }
}

fn route_key(row: &keys::Model) -> Result<RouteKey, DbErr> {
    let damaged = || DbErr::Custom(format!("the registry's row of key {} is damaged", row.id));
    Ok(RouteKey {
        id: row.id.parse().map_err(|_| damaged())?,
        digest: row.digest.clone().try_into().map_err(|_| damaged())?,
        scopes: serde_json::from_value(row.scopes.clone()).map_err(|_| damaged())?,
        expires_at: row.expires_at,
    })
}

#[cfg(test)]
mod tests;
