//! `/v1/tenants/{tenant}/issuers`: who else may say who calls. An issuer speaks for its tenant alone.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, EntityTrait, ModelTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
    SqlErr,
};
use serde::Serialize;
use service::Problem;
use service::extract::{Json, Path, Query};
use service::problem::ProblemBody;
use tenancy::Issuer;
use tenancy::issuer::MAX_ISSUERS;
use utoipa::ToSchema;

use super::Api;
use super::auth::Operator;
use super::config::touch_if_seen;
use super::once::{Answer, Ticket};
use super::page::{Page, PageQuery, after, limit};
use super::tenants::{Tenant, find, find_alive, save, shown};
use crate::audit::Deed;
use crate::registry::entities::issuers;

/// An issuer of a tenant.
#[derive(Serialize, ToSchema)]
pub(super) struct NamedIssuer {
    /// What it is called here.
    name: String,
    #[serde(flatten)]
    issuer: Issuer,
    created_at: DateTime<Utc>,
}

impl NamedIssuer {
    fn of(row: issuers::Model) -> Result<Self, Problem> {
        let issuer = serde_json::from_value(row.described).map_err(Problem::internal)?;
        Ok(Self { name: row.name, issuer, created_at: row.created_at })
    }
}

/// Lists a tenant's issuers.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/issuers", tag = "issuers",
    params(("tenant" = String, Path, description = "Id or slug"), PageQuery),
    responses((status = 200, body = Page<NamedIssuer>), (status = 404, body = ProblemBody))
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Operator,
    Path(tenant): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<NamedIssuer>>, Problem> {
    let db = api.plane.registry.db();
    let limit = limit(page.limit)?;
    let row = find(db, &tenant).await?;
    let mut select = issuers::Entity::find().filter(issuers::Column::TenantId.eq(row.id));
    if let Some(after) = after::<String>(page.cursor.as_deref())? {
        select = select.filter(issuers::Column::Name.gt(after));
    }
    let rows = select.order_by_asc(issuers::Column::Name).limit(limit + 1).all(db).await?;
    let named = rows.into_iter().map(NamedIssuer::of).collect::<Result<Vec<_>, _>>()?;
    Ok(Json(Page::of(named, limit, |issuer| issuer.name.clone(), |issuer| issuer)))
}

/// Shows one issuer of a tenant.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/issuers/{name}", tag = "issuers",
    params(("tenant" = String, Path, description = "Id or slug"), ("name" = String, Path)),
    responses((status = 200, body = NamedIssuer), (status = 404, body = ProblemBody))
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Operator,
    Path((tenant, name)): Path<(String, String)>,
) -> Result<Json<NamedIssuer>, Problem> {
    let db = api.plane.registry.db();
    let row = find(db, &tenant).await?;
    let issuer = issuers::Entity::find_by_id((row.id, name)).one(db).await?.ok_or_else(no_such_issuer)?;
    Ok(Json(NamedIssuer::of(issuer)?))
}

/// Trusts an issuer of tokens, or describes one otherwise. It speaks for this tenant alone, whatever its tokens claim.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/issuers/{name}", tag = "issuers", request_body = Issuer,
    params(("tenant" = String, Path, description = "Id or slug"), ("name" = String, Path, description = "What it is called here")),
    responses((status = 200, body = NamedIssuer), (status = 404, body = ProblemBody),
              (status = 409, description = "Another tenant has the issuer", body = ProblemBody), (status = 422, body = ProblemBody))
)]
pub(super) async fn set(
    State(api): State<Api>,
    _: Operator,
    Path((tenant, name)): Path<(String, String)>,
    Json(issuer): Json<Issuer>,
) -> Result<Json<NamedIssuer>, Problem> {
    let plane = &api.plane;
    let is_name = (1..=40).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    if !is_name {
        return Err(Problem::invalid_field("name", "must be 1 to 40 characters of a-z, 0-9, - and _"));
    }
    issuer
        .check(plane.allow_private_issuers, plane.product.scopes)
        .map_err(|error| Problem::invalid_field(error.field, error.reason))?;
    let mut change = plane.registry.change().await?;
    let row = find_alive(&change, &tenant).await?;
    let others = issuers::Entity::find().filter(issuers::Column::TenantId.eq(row.id));
    let others = others.filter(issuers::Column::Name.ne(name.as_str())).count(change.db()).await?;
    if others >= MAX_ISSUERS as u64 {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "too-many",
            format!("A tenant has at most {MAX_ISSUERS} issuers. Remove one first."),
        ));
    }
    let described = issuers::ActiveModel {
        tenant_id: Set(row.id),
        name: Set(name.clone()),
        issuer: Set(issuer.issuer.clone()),
        described: Set(serde_json::to_value(&issuer).map_err(Problem::internal)?),
        created_at: Set(change.now()),
    };
    let again = OnConflict::columns([issuers::Column::TenantId, issuers::Column::Name])
        .update_columns([issuers::Column::Issuer, issuers::Column::Described])
        .to_owned();
    let before = issuers::Entity::find_by_id((row.id, name.clone())).one(change.db()).await?.map(|it| it.described);
    let deed = Deed::on_tenant("issuer.set", row.id).of(name.as_str()).after(&issuer);
    change.audit(match &before {
        Some(before) => deed.before(before),
        None => deed,
    });
    let set = issuers::Entity::insert(described).on_conflict(again).exec_with_returning(change.db()).await;
    let set = set.map_err(|error| match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => Problem::new(
            StatusCode::CONFLICT,
            "issuer-taken",
            "A tenant trusts this issuer already, and it speaks for one alone. Remove it there first, or configure it as \
             an issuer of the platform.",
        )
        .with_field("issuer", "is taken"),
        _ => error.into(),
    })?;
    touch_if_seen(&mut change, &row)?;
    change.commit().await?;
    Ok(Json(NamedIssuer::of(set)?))
}

/// Trusts an issuer no longer: no data plane takes its tokens any more.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/issuers/{name}", tag = "issuers",
    params(("tenant" = String, Path, description = "Id or slug"), ("name" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody))
)]
pub(super) async fn remove(
    State(api): State<Api>,
    _: Operator,
    Path((tenant, name)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let mut change = api.plane.registry.change().await?;
    let row = find_alive(&change, &tenant).await?;
    let known = issuers::Entity::find_by_id((row.id, name)).one(change.db()).await?.ok_or_else(no_such_issuer)?;
    change.audit(Deed::on_tenant("issuer.removed", row.id).of(known.name.as_str()).before(&known.described));
    known.delete(change.db()).await?;
    touch_if_seen(&mut change, &row)?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes the signed tokens that were issued for a tenant until now, by whatever issuer. API keys stay as they are.
///
/// An issuer's clock may be ahead by the data planes' `tokens.leeway_seconds` (30 by default). So data planes also refuse the
/// tokens that are issued within that time after the call: users must log in again once it has passed.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/revoke-tokens", tag = "issuers",
    params(("tenant" = String, Path, description = "Id or slug"), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Tenant), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody))
)]
pub(super) async fn revoke_tokens(
    State(api): State<Api>,
    Path(tenant): Path<String>,
    mut ticket: Ticket,
) -> Result<Answer, Problem> {
    let mut change = api.plane.registry.change().await?;
    let row = find_alive(&change, &tenant).await?;
    let now = change.now();
    let before = row.tokens_from;
    let row = save(&change, row, now, |row| row.tokens_from = Set(Some(now))).await?;
    change.audit(Deed::on_tenant("tenant.tokens-revoked", row.id).before(&before).after(&now));
    touch_if_seen(&mut change, &row)?;
    let answer = shown(change.db(), row).await?;
    ticket.record(&change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

fn no_such_issuer() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "issuer-not-found",
        "The tenant has no issuer of that name. GET its issuers to see those it has.",
    )
}
