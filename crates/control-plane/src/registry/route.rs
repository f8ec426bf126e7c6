//! Tenants as data planes see them: routes, made of the rows that belong to a tenant.
//!
//! Only a tenant that was active has one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures_util::try_join;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect, QueryTrait};
use tenancy::issuer::{Issuer, MAX_TEXT};
use tenancy::route::{Revision, Route, RouteKey};
use tenancy::seal::Sealed;
use tenancy::{KeyId, Slug, Status, TenantId};
use uuid::Uuid;

use super::entities::{config, domains, issuers, keys, plans, servers, tenants};
use super::{Registry, plan_of};

impl Registry {
    /// The route of the tenant with this id.
    pub(crate) async fn route_of_tenant(&self, tenant: TenantId) -> Result<Option<Route>, DbErr> {
        self.route_where(tenants::Column::Id.eq(tenant.as_uuid())).await
    }

    /// The route of the tenant with this key.
    pub(crate) async fn route_of_key(&self, key: &KeyId) -> Result<Option<Route>, DbErr> {
        let owner = keys::Entity::find().select_only().column(keys::Column::TenantId);
        let owner = owner.filter(keys::Column::Id.eq(key.as_str()));
        self.route_where(tenants::Column::Id.in_subquery(owner.into_query())).await
    }

    /// The route of the tenant with this slug.
    pub(crate) async fn route_of_slug(&self, slug: &str) -> Result<Option<Route>, DbErr> {
        // A text that is no slug is nobody's, and need not be looked for.
        if slug.parse::<Slug>().is_err() {
            return Ok(None);
        }
        let is_alive = tenants::Column::Status.ne(Status::Deleted.as_str());
        self.route_where(tenants::Column::Slug.eq(slug).and(is_alive)).await
    }

    /// The route of the tenant with this custom host.
    pub(crate) async fn route_of_host(&self, host: &str) -> Result<Option<Route>, DbErr> {
        if host.len() > MAX_HOST || host.contains('\0') {
            return Ok(None);
        }
        let owner = domains::Entity::find().select_only().column(domains::Column::TenantId);
        let owner = owner.filter(domains::Column::Host.eq(host));
        self.route_where(tenants::Column::Id.in_subquery(owner.into_query())).await
    }

    /// The route of the tenant that has this issuer.
    pub(crate) async fn route_of_issuer(&self, issuer: &str) -> Result<Option<Route>, DbErr> {
        if issuer.len() > MAX_TEXT || issuer.contains('\0') {
            return Ok(None);
        }
        let owner = issuers::Entity::find().select_only().column(issuers::Column::TenantId);
        let owner = owner.filter(issuers::Column::Issuer.eq(issuer));
        self.route_where(tenants::Column::Id.in_subquery(owner.into_query())).await
    }

    /// The route of the one tenant that matches.
    async fn route_where(&self, condition: Expr) -> Result<Option<Route>, DbErr> {
        let found = tenants::Entity::find().filter(condition).all(self.db()).await?;
        Ok(routes(self.db(), found).await?.into_values().next())
    }
}

/// Longest host name (RFC 1035).
const MAX_HOST: usize = 253;

/// The routes of these tenants, by id; those that must not be seen are left out.
pub(crate) async fn routes(
    db: &impl ConnectionTrait,
    rows: Vec<tenants::Model>,
) -> Result<HashMap<Uuid, Route>, DbErr> {
    let rows: Vec<_> =
        rows.into_iter().filter(|row| row.status.parse::<Status>().is_ok_and(Status::is_visible)).collect();
    if rows.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
    let server_ids: BTreeSet<Uuid> = rows.iter().filter_map(|row| row.server_id).collect();
    let plan_names: BTreeSet<&str> = rows.iter().map(|row| &*row.plan).collect();
    // A tenant's first request waits for them: all are asked for at once.
    let asked = async {
        try_join!(
            plans::Entity::find().filter(plans::Column::Name.is_in(plan_names)).all(db),
            servers::Entity::find().filter(servers::Column::Id.is_in(server_ids)).all(db),
            domains::Entity::find().filter(domains::Column::TenantId.is_in(ids.clone())).all(db),
            keys::Entity::find().filter(keys::Column::TenantId.is_in(ids.clone())).all(db),
            issuers::Entity::find().filter(issuers::Column::TenantId.is_in(ids.clone())).all(db),
            config::Entity::find().filter(config::Column::TenantId.is_in(ids)).all(db),
        )
    };
    // In a box: six statements make a large future.
    let (plans, servers, own_domains, own_keys, own_issuers, own_config) = Box::pin(asked).await?;
    let plans: HashMap<String, plans::Model> = plans.into_iter().map(|plan| (plan.name.clone(), plan)).collect();
    let servers: HashMap<Uuid, String> = servers.into_iter().map(|server| (server.id, server.name)).collect();
    let mut hosts: HashMap<Uuid, Vec<String>> = HashMap::new();
    for domain in own_domains {
        hosts.entry(domain.tenant_id).or_default().push(domain.host);
    }
    let mut api_keys: HashMap<Uuid, Vec<RouteKey>> = HashMap::new();
    for key in own_keys {
        api_keys.entry(key.tenant_id).or_default().push(route_key(&key)?);
    }
    let mut issuers: HashMap<Uuid, Vec<Issuer>> = HashMap::new();
    for row in own_issuers {
        let damaged = |_| DbErr::Custom(format!("the registry's row of issuer {} is damaged", row.name));
        let issuer = serde_json::from_value(row.described.clone()).map_err(damaged)?;
        issuers.entry(row.tenant_id).or_default().push(issuer);
    }
    let mut entries: HashMap<Uuid, BTreeMap<String, serde_json::Value>> = HashMap::new();
    for entry in own_config {
        entries.entry(entry.tenant_id).or_default().insert(entry.key, entry.value);
    }

    let mut routes = HashMap::new();
    for row in rows {
        let id = row.id;
        let damaged = |what: &str| DbErr::Custom(format!("the registry's row of tenant {id} has no {what}"));
        let plan = plans.get(&row.plan).cloned().map(plan_of).ok_or_else(|| damaged("plan"))?;
        let plan = match row.limits {
            Some(own) => plan.with(&serde_json::from_value(own).map_err(|_| damaged("sound limits"))?),
            None => plan,
        };
        let server = row.server_id.and_then(|server| servers.get(&server).cloned());
        let route = Route {
            tenant: id.into(),
            revision: Revision(row.revision.unsigned_abs()),
            slug: row.slug.parse().map_err(|_| damaged("slug"))?,
            hosts: hosts.remove(&id).unwrap_or_default(),
            status: row.status.parse().map_err(|_| damaged("status"))?,
            plan,
            config: entries.remove(&id).unwrap_or_default(),
            keys: api_keys.remove(&id).unwrap_or_default(),
            issuers: issuers.remove(&id).unwrap_or_default(),
            tokens_from: row.tokens_from,
            slug_since: Some(row.slug_since.unwrap_or(row.created_at)),
            schema_version: row.schema_version.unsigned_abs(),
            server: server.ok_or_else(|| damaged("server"))?,
            generation: row.generation.unsigned_abs(),
            reconnects: row.reconnects.unsigned_abs(),
            sealed_url: Sealed::from_stored(row.sealed_url.ok_or_else(|| damaged("database URL"))?),
        };
        routes.insert(id, route);
    }
    Ok(routes)
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
