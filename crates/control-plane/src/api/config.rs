//! `/v1/tenants/{tenant}/config`: a tenant's entries, each with a key and type that the product declared.

use std::collections::BTreeMap;

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter};
use serde::Serialize;
use serde_json::Value;
use service::Problem;
use service::extract::{AnyJson, Json, Path};
use service::problem::ProblemBody;
use tenancy::Product;
use tenancy::product::{ConfigKey, InvalidConfig};
use tenancy::route::{MAX_CONFIG_ENTRIES, MAX_CONFIG_VALUE};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::auth::Operator;
use super::tenants::{find, find_alive};
use crate::audit::Deed;
use crate::registry::entities::config;

/// What tenants' configurations may have, as the product declares it.
#[derive(Serialize, ToSchema)]
pub(super) struct Declared {
    items: Vec<ConfigKey>,
}

/// Lists the keys that a tenant's configuration may have: their types, defaults and meanings.
#[utoipa::path(get, path = "/v1/config-keys", tag = "config", responses((status = 200, body = Declared)))]
pub(super) async fn declared(State(api): State<Api>, _: Operator) -> Json<Declared> {
    Json(Declared { items: api.plane.product.config_keys.clone() })
}

/// Lists a tenant's configuration: its own entries, and the product's defaults for the rest.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/config", tag = "config", params(("tenant" = String, Path, description = "Id or slug")),
    responses((status = 200, body = BTreeMap<String, Value>), (status = 404, body = ProblemBody))
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Operator,
    Path(tenant): Path<String>,
) -> Result<Json<BTreeMap<String, Value>>, Problem> {
    let db = api.plane.registry.db();
    let row = find(db, &tenant).await?;
    let declared = api.plane.product.config_keys.iter();
    let mut entries: BTreeMap<String, Value> = declared.map(|key| (key.name.to_owned(), key.default.clone())).collect();
    for entry in config::Entity::find().filter(config::Column::TenantId.eq(row.id)).all(db).await? {
        entries.insert(entry.key, entry.value);
    }
    Ok(Json(entries))
}

/// Shows one entry, or its default.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/config/{key}", tag = "config",
    params(("tenant" = String, Path, description = "Id or slug"), ("key" = String, Path)),
    responses((status = 200, body = Value), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody))
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Operator,
    Path((tenant, key)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    let db = api.plane.registry.db();
    let row = find(db, &tenant).await?;
    let default = default_of(&api.plane.product, &key)?;
    let entry = config::Entity::find_by_id((row.id, key)).one(db).await?;
    Ok(Json(entry.map_or(default, |entry| entry.value)))
}

/// Sets one entry; the body is the JSON value.
#[utoipa::path(
    put, path = "/v1/tenants/{tenant}/config/{key}", tag = "config", request_body = Value,
    params(("tenant" = String, Path, description = "Id or slug"), ("key" = String, Path)),
    responses((status = 200, body = Value), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody))
)]
pub(super) async fn set(
    State(api): State<Api>,
    _: Operator,
    Path((tenant, key)): Path<(String, String)>,
    AnyJson(value): AnyJson,
) -> Result<Json<Value>, Problem> {
    check(&api.plane.product, &BTreeMap::from([(key.clone(), value.clone())]))?;
    let registry = &api.plane.registry;
    let mut change = registry.change().await?;
    let row = find_alive(&change, &tenant).await?;
    let others = config::Entity::find().filter(config::Column::TenantId.eq(row.id));
    let others = others.filter(config::Column::Key.ne(key.as_str())).count(change.db()).await?;
    if others >= MAX_CONFIG_ENTRIES as u64 {
        return Err(too_many());
    }
    let before = config::Entity::find_by_id((row.id, key.clone())).one(change.db()).await?.map(|entry| entry.value);
    let deed = Deed::on_tenant("config.set", row.id).of(key.as_str()).after(&value);
    change.audit(match &before {
        Some(before) => deed.before(before),
        None => deed,
    });
    put(change.db(), row.id, key, value.clone(), registry.now()).await?;
    touch_if_seen(&mut change, &row)?;
    change.commit().await?;
    Ok(Json(value))
}

/// Removes one entry, so that the product's default holds. Removing one that is not there is fine.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/config/{key}", tag = "config",
    params(("tenant" = String, Path, description = "Id or slug"), ("key" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody))
)]
pub(super) async fn unset(
    State(api): State<Api>,
    _: Operator,
    Path((tenant, key)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    default_of(&api.plane.product, &key)?;
    let mut change = api.plane.registry.change().await?;
    let row = find_alive(&change, &tenant).await?;
    let before = config::Entity::find_by_id((row.id, key.clone())).one(change.db()).await?.map(|entry| entry.value);
    change.audit(Deed::on_tenant("config.unset", row.id).of(key.as_str()).before(&before));
    config::Entity::delete_by_id((row.id, key)).exec(change.db()).await?;
    touch_if_seen(&mut change, &row)?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Data planes have news of a tenant only once it was active.
pub(super) fn touch_if_seen(
    change: &mut crate::registry::change::Change,
    row: &crate::registry::entities::tenants::Model,
) -> Result<(), Problem> {
    if super::tenants::status_of(row)?.is_visible() {
        change.touch(row.id);
    }
    Ok(())
}

/// Refuses what the product did not declare so, and what is too much.
pub(super) fn check(product: &Product, entries: &BTreeMap<String, Value>) -> Result<(), Problem> {
    if entries.len() > MAX_CONFIG_ENTRIES {
        return Err(too_many());
    }
    for (key, value) in entries {
        product.check_config(key, value).map_err(|error| refused(key, &error))?;
        if value.to_string().len() > MAX_CONFIG_VALUE {
            return Err(Problem::invalid_field(
                format!("config.{key}"),
                format!("has at most {MAX_CONFIG_VALUE} bytes"),
            ));
        }
    }
    Ok(())
}

fn default_of(product: &Product, key: &str) -> Result<Value, Problem> {
    // The value does not matter here; an unknown key is told with those that are known.
    match product.config_key(key) {
        Some(declared) => Ok(declared.default.clone()),
        None => Err(product
            .check_config(key, &Value::Null)
            .map_or_else(|error| refused(key, &error), |()| Problem::of_status(StatusCode::NOT_FOUND))),
    }
}

fn refused(key: &str, error: &InvalidConfig) -> Problem {
    let kind = match error {
        InvalidConfig::UnknownKey { .. } => "unknown-config-key",
        InvalidConfig::WrongType { .. } => "invalid-config-value",
    };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, kind, format!("The configuration is not valid: {error}."))
        .with_field(format!("config.{key}"), error.to_string())
}

fn too_many() -> Problem {
    let detail = format!("has at most {MAX_CONFIG_ENTRIES} entries: remove some first");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too-many", format!("A tenant's configuration {detail}."))
        .with_field("config", detail)
}

/// Writes one entry.
pub(super) async fn put(
    db: &impl ConnectionTrait,
    tenant: Uuid,
    key: String,
    value: Value,
    now: DateTime<Utc>,
) -> Result<(), Problem> {
    let row = config::ActiveModel { tenant_id: Set(tenant), key: Set(key), value: Set(value), created_at: Set(now) };
    let again = OnConflict::columns([config::Column::TenantId, config::Column::Key])
        .update_column(config::Column::Value)
        .to_owned();
    config::Entity::insert(row).on_conflict(again).exec_without_returning(db).await?;
    Ok(())
}
