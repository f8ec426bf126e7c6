//! Tenants as data planes see them: routes, made of the rows that belong to a tenant.
//!
//! Only a tenant that was active has one.

use std::collections::{BTreeMap, HashMap};

use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter};
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
        let row = tenants::Entity::find_by_id(tenant.as_uuid()).one(self.db()).await?;
        let routes = routes(self.db(), row.into_iter().collect()).await?;
        Ok(routes.into_values().next())
    }

    /// The route of the tenant with this key.
    pub(crate) async fn route_of_key(&self, key: &KeyId) -> Result<Option<Route>, DbErr> {
        match keys::Entity::find_by_id(key.as_str()).one(self.db()).await? {
            Some(row) => self.route_of_tenant(row.tenant_id.into()).await,
            None => Ok(None),
        }
    }

    /// The route of the tenant with this slug.
    pub(crate) async fn route_of_slug(&self, slug: &str) -> Result<Option<Route>, DbErr> {
        // A text that is no slug is nobody's, and need not be looked for.
        if slug.parse::<Slug>().is_err() {
            return Ok(None);
        }
        let alive = tenants::Entity::find().filter(tenants::Column::Slug.eq(slug));
        let alive = alive.filter(tenants::Column::Status.ne(Status::Deleted.as_str()));
        Ok(routes(self.db(), alive.all(self.db()).await?).await?.into_values().next())
    }

    /// The route of the tenant with this custom host.
    pub(crate) async fn route_of_host(&self, host: &str) -> Result<Option<Route>, DbErr> {
        if host.len() > MAX_HOST || host.contains('\0') {
            return Ok(None);
        }
        match domains::Entity::find_by_id(host).one(self.db()).await? {
            Some(row) => self.route_of_tenant(row.tenant_id.into()).await,
            None => Ok(None),
        }
    }

    /// The route of the tenant that has this issuer.
    pub(crate) async fn route_of_issuer(&self, issuer: &str) -> Result<Option<Route>, DbErr> {
        if issuer.len() > MAX_TEXT || issuer.contains('\0') {
            return Ok(None);
        }
        match issuers::Entity::find().filter(issuers::Column::Issuer.eq(issuer)).one(self.db()).await? {
            Some(row) => self.route_of_tenant(row.tenant_id.into()).await,
            None => Ok(None),
        }
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
    let plans: HashMap<String, plans::Model> =
        plans::Entity::find().all(db).await?.into_iter().map(|plan| (plan.name.clone(), plan)).collect();
    let servers: HashMap<Uuid, String> =
        servers::Entity::find().all(db).await?.into_iter().map(|server| (server.id, server.name)).collect();
    let mut hosts: HashMap<Uuid, Vec<String>> = HashMap::new();
    for domain in domains::Entity::find().filter(domains::Column::TenantId.is_in(ids.clone())).all(db).await? {
        hosts.entry(domain.tenant_id).or_default().push(domain.host);
    }
    let mut api_keys: HashMap<Uuid, Vec<RouteKey>> = HashMap::new();
    for key in keys::Entity::find().filter(keys::Column::TenantId.is_in(ids.clone())).all(db).await? {
        let tenant = key.tenant_id;
        api_keys.entry(tenant).or_default().push(route_key(&key)?);
    }
    let mut own_issuers: HashMap<Uuid, Vec<Issuer>> = HashMap::new();
    for row in issuers::Entity::find().filter(issuers::Column::TenantId.is_in(ids.clone())).all(db).await? {
        let damaged = |_| DbErr::Custom(format!("the registry's row of issuer {} is damaged", row.name));
        let issuer = serde_json::from_value(row.described.clone()).map_err(damaged)?;
        own_issuers.entry(row.tenant_id).or_default().push(issuer);
    }
    let mut entries: HashMap<Uuid, BTreeMap<String, serde_json::Value>> = HashMap::new();
    for entry in config::Entity::find().filter(config::Column::TenantId.is_in(ids)).all(db).await? {
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
            issuers: own_issuers.remove(&id).unwrap_or_default(),
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
