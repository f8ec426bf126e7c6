//! `GET /v1/tenants`: pages in the order of creation, filtered.

use std::collections::HashMap;

use axum::extract::State;
use sea_orm::sea_query::{Func, LikeExpr};
use sea_orm::{ColumnTrait, Condition, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::Deserialize;
use service::Problem;
use service::extract::{Json, Query};
use service::problem::ProblemBody;
use tenancy::Status;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Tenant;
use crate::api::Api;
use crate::api::auth::Operator;
use crate::api::page::{Page, after, limit};
use crate::registry::entities::{plans, servers, tenants};

/// Which tenants.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantsQuery {
    /// In this status.
    status: Option<String>,
    /// On this plan.
    plan: Option<String>,
    /// That demand this region.
    region: Option<String>,
    /// On this server.
    server: Option<String>,
    /// With this text in slug or name.
    q: Option<String>,
    /// Items at most, 1 to 200; 50 unless told.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Lists tenants.
#[utoipa::path(
    get, path = "/v1/tenants", tag = "tenants", params(TenantsQuery),
    responses((status = 200, body = Page<Tenant>), (status = 400, description = "Bad cursor or limit", body = ProblemBody))
)]
pub(crate) async fn list(
    State(api): State<Api>,
    _: Operator,
    Query(query): Query<TenantsQuery>,
) -> Result<Json<Page<Tenant>>, Problem> {
    let db = api.plane.registry.db();
    let limit = limit(query.limit)?;
    let mut select = tenants::Entity::find().order_by_asc(tenants::Column::Id).limit(limit + 1);
    if let Some(after) = after::<Uuid>(query.cursor.as_deref())? {
        select = select.filter(tenants::Column::Id.gt(after));
    }
    if let Some(status) = query.status {
        let status: Status = status.parse().map_err(|error| refused("status", &error))?;
        select = select.filter(tenants::Column::Status.eq(status.as_str()));
    }
    if let Some(plan) = query.plan {
        if plans::Entity::find_by_id(plan.as_str()).one(db).await?.is_none() {
            return Err(refused("plan", &"there is no such plan: GET /v1/plans lists those there are"));
        }
        select = select.filter(tenants::Column::Plan.eq(plan));
    }
    if let Some(region) = query.region {
        let somewhere = servers::Entity::find().filter(servers::Column::Region.eq(region.as_str())).one(db).await?;
        if somewhere.is_none() {
            return Err(refused("region", &"no server is in this region: GET /v1/servers lists those there are"));
        }
        select = select.filter(tenants::Column::Region.eq(region));
    }
    let names: HashMap<Uuid, String> =
        servers::Entity::find().all(db).await?.into_iter().map(|server| (server.id, server.name)).collect();
    if let Some(server) = query.server {
        let id = names.iter().find(|(_, name)| **name == server).map(|(id, _)| *id);
        let id =
            id.ok_or_else(|| refused("server", &"there is no such server: GET /v1/servers lists those there are"))?;
        select = select.filter(tenants::Column::ServerId.eq(id));
    }
    if let Some(text) = query.q {
        // Databases fold ASCII alone, each in its own way beyond.
        // What the caller typed is looked for as it is: % and _ are no wildcards.
        let escaped = text.to_ascii_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
        let like = |column: tenants::Column| {
            Func::lower(sea_orm::sea_query::Expr::col(column)).like(LikeExpr::new(format!("%{escaped}%")).escape('\\'))
        };
        select = select.filter(Condition::any().add(like(tenants::Column::Slug)).add(like(tenants::Column::Name)));
    }
    let rows = select.all(db).await?;
    Ok(Json(Page::of(
        rows,
        limit,
        |row| row.id.to_string(),
        |row| {
            let server = row.server_id.and_then(|id| names.get(&id).cloned());
            Tenant::of(row, server)
        },
    )))
}

fn refused(field: &'static str, reason: &dyn std::fmt::Display) -> Problem {
    Problem::new(http::StatusCode::BAD_REQUEST, "invalid-query", format!("`{field}`: {reason}."))
        .with_field(field, reason.to_string())
}
