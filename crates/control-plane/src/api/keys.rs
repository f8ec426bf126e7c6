//! `/v1/tenants/{tenant}/keys`: API keys. The secret is told once, in the answer that makes it; only a digest is kept.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::{Json, Path, Query, short};
use service::problem::ProblemBody;
use tenancy::ApiKey;
use tenancy::audit::READ_SCOPE;
use tenancy::route::MAX_KEYS;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::auth::Operator;
use super::config::touch_if_seen;
use super::once::{Answer, Once};
use super::page::{Page, PageQuery, after, limit};
use super::tenants::{find, find_alive, text};
use crate::audit::Deed;
use crate::registry::entities::keys;

/// A new key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateKey {
    /// What it is for, for people.
    #[serde(default = "unnamed")]
    name: String,
    /// What it allows; all of the product's scopes unless told. `audit:read` must be told: it reads the tenant's own trail.
    scopes: Option<Vec<String>>,
    /// From when it no longer counts.
    expires_at: Option<DateTime<Utc>>,
}

fn unnamed() -> String {
    "unnamed".to_owned()
}

/// A key, without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Key {
    id: String,
    name: String,
    scopes: serde_json::Value,
    expires_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    /// When it was last used, to the minute, as far as data planes have told.
    last_used_at: Option<DateTime<Utc>>,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub(super) struct NewKey {
    #[serde(flatten)]
    key: Key,
    /// The whole key, `fh_<id>_<secret>`. It is told this once.
    api_key: String,
}

impl From<keys::Model> for Key {
    fn from(row: keys::Model) -> Self {
        let keys::Model { id, name, scopes, expires_at, created_at, last_used_at, .. } = row;
        Self { id, name, scopes, expires_at, created_at, last_used_at }
    }
}

/// Lists a tenant's keys.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/keys", tag = "keys", params(("tenant" = String, Path, description = "Id or slug"), PageQuery),
    responses((status = 200, body = Page<Key>), (status = 404, body = ProblemBody))
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Operator,
    Path(tenant): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Key>>, Problem> {
    let db = api.plane.registry.db();
    let limit = limit(page.limit)?;
    let row = find(db, &tenant).await?;
    let mut select = keys::Entity::find().filter(keys::Column::TenantId.eq(row.id));
    if let Some(after) = after::<String>(page.cursor.as_deref())? {
        select = select.filter(keys::Column::Id.gt(after));
    }
    let rows = select.order_by_asc(keys::Column::Id).limit(limit + 1).all(db).await?;
    Ok(Json(Page::of(rows, limit, |row| row.id.clone(), Key::from)))
}

/// Makes a key. The answer holds the secret, this once.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/keys", tag = "keys", request_body = CreateKey,
    params(("tenant" = String, Path, description = "Id or slug"), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = NewKey), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody))
)]
pub(super) async fn create(
    State(api): State<Api>,
    Path(tenant): Path<String>,
    Once { body, mut ticket }: Once<CreateKey>,
) -> Result<Answer, Problem> {
    let plane = &api.plane;
    let name = text("name", &body.name, 100)?;
    let known = plane.product.scopes;
    let scopes = body.scopes.unwrap_or_else(|| known.iter().map(|&scope| scope.to_owned()).collect());
    let is_known = |scope: &&String| known.contains(&scope.as_str()) || *scope == READ_SCOPE;
    if let Some(unknown) = scopes.iter().find(|scope| !is_known(scope)) {
        let all = [known, &[READ_SCOPE]].concat().join(", ");
        let detail = format!("`{}` is no scope here; there are: {all}", short(unknown));
        return Err(Problem::invalid_field("scopes", detail));
    }
    // With this, what is declared bounds what a route holds.
    if let Some(twice) =
        scopes.iter().take(known.len() + 2).enumerate().find(|(at, scope)| scopes[..*at].contains(scope))
    {
        return Err(Problem::invalid_field("scopes", format!("`{}` is named twice", twice.1)));
    }
    let now = plane.registry.now();
    if body.expires_at.is_some_and(|expiry| expiry <= now) {
        return Err(Problem::invalid_field("expires_at", "must be in the future"));
    }
    let mut change = plane.registry.change().await?;
    let tenant = find_alive(&change, &tenant).await?;
    let count = keys::Entity::find().filter(keys::Column::TenantId.eq(tenant.id)).count(change.db()).await?;
    if count >= MAX_KEYS as u64 {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "too-many",
            format!("A tenant has at most {MAX_KEYS} keys. Revoke one that is not used any more."),
        ));
    }
    let key = ApiKey::generate(&mut rand::rng());
    let row = keys::ActiveModel {
        id: Set(key.id().to_string()),
        tenant_id: Set(tenant.id),
        name: Set(name),
        digest: Set(key.digest().into()),
        scopes: Set(serde_json::json!(scopes)),
        expires_at: Set(body.expires_at),
        created_at: Set(now),
        last_used_at: Set(None),
    };
    let row = row.insert(change.db()).await?;
    let location = format!("/v1/tenants/{}/keys/{}", tenant.id, row.id);
    let key_made = Key::from(row);
    change.audit(Deed::on_tenant("key.created", tenant.id).of(key_made.id.as_str()).after(&key_made));
    let made = NewKey { key: key_made, api_key: key.reveal().expose_secret().to_owned() };
    let answer = Answer::new(StatusCode::CREATED, &made)?.at(location);
    touch_if_seen(&mut change, &tenant)?;
    ticket.record(&change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

/// Shows a key, without its secret.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/keys/{id}", tag = "keys",
    params(("tenant" = String, Path, description = "Id or slug"), ("id" = String, Path)),
    responses((status = 200, body = Key), (status = 404, body = ProblemBody))
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Operator,
    Path((tenant, id)): Path<(String, String)>,
) -> Result<Json<Key>, Problem> {
    let db = api.plane.registry.db();
    let tenant = find(db, &tenant).await?;
    let row = keys::Entity::find_by_id(id).one(db).await?;
    row.filter(|row| row.tenant_id == tenant.id).map(|row| Json(row.into())).ok_or_else(no_such_key)
}

/// Revokes a key: no data plane takes it any more.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/keys/{id}", tag = "keys",
    params(("tenant" = String, Path, description = "Id or slug"), ("id" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody))
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    _: Operator,
    Path((tenant, id)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let mut change = api.plane.registry.change().await?;
    let tenant = find_alive(&change, &tenant).await?;
    let gone = keys::Entity::delete_many()
        .filter(keys::Column::Id.eq(id))
        .filter(keys::Column::TenantId.eq::<Uuid>(tenant.id))
        .exec_with_returning(change.db())
        .await?
        .pop();
    let gone = Key::from(gone.ok_or_else(no_such_key)?);
    change.audit(Deed::on_tenant("key.revoked", tenant.id).of(gone.id.as_str()).before(&gone));
    touch_if_seen(&mut change, &tenant)?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn no_such_key() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "key-not-found",
        "The tenant has no such key. GET its keys to see those it has.",
    )
}
