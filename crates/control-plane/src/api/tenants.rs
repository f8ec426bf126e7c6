//! Tenants as operators see them, and how one is found by what its caller calls it.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod reconnect;
pub(crate) mod rotate;
pub(crate) mod show;
pub(crate) mod status;
pub(crate) mod update;

use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::{StatusCode, header};
use sea_orm::sea_query::LockType;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
    Select,
};
use serde::Serialize;
use service::Problem;
use service::extract::Json;
use tenancy::status::IllegalTransition;
use tenancy::{Slug, Status, TenantId, TenantLimits};
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Operator;
use super::once::Answer;
use super::operations::Operation;
use super::precondition::{concurrent_change, etag};
use crate::provision::{Kind, On, Order};
use crate::registry::change::Change;
use crate::registry::entities::{erasures, operations, plans, servers, tenants};
use crate::registry::slugs;

/// A tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Tenant {
    id: TenantId,
    slug: String,
    name: String,
    status: String,
    plan: String,
    /// Limits of its own, in place of its plan's.
    #[schema(value_type = Option<TenantLimits>)]
    limits: Option<serde_json::Value>,
    /// The region that it demands.
    region: Option<String>,
    admin_email: Option<String>,
    /// The server that its database is on.
    server: Option<String>,
    schema_version: i32,
    /// The number of its database URL.
    generation: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// Until when a `deleting` tenant can be restored.
    delete_after: Option<DateTime<Utc>>,
    /// Signed tokens issued before this, and within the data planes' `tokens.leeway_seconds` after it, count no longer.
    tokens_from: Option<DateTime<Utc>>,
    /// What was destroyed of a `deleted` one; only where one tenant is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    erasure: Option<Erasure>,
}

/// What was destroyed of a tenant.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Erasure {
    /// By whose will.
    requested_by: Option<String>,
    requested_at: DateTime<Utc>,
    erased_at: Option<DateTime<Utc>>,
    /// The server that its database was on.
    server: Option<String>,
    /// The database's name there.
    database: Option<String>,
    /// Rows by table when the database was dropped; a text that says why they were not counted; null where there was none.
    #[schema(value_type = Option<Object>)]
    row_counts: serde_json::Value,
}

impl From<erasures::Model> for Erasure {
    fn from(row: erasures::Model) -> Self {
        Self {
            requested_by: row.requested_by,
            requested_at: row.requested_at,
            erased_at: row.erased_at,
            server: row.server,
            database: row.database,
            row_counts: row.row_counts,
        }
    }
}

/// A tenant, and what is being done with it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct TenantAndOperation {
    tenant: Tenant,
    operation: Operation,
}

impl Tenant {
    fn of(row: tenants::Model, server: Option<String>) -> Self {
        Self {
            id: row.id.into(),
            slug: row.slug,
            name: row.name,
            status: row.status,
            plan: row.plan,
            limits: row.limits,
            region: row.region,
            admin_email: row.admin_email,
            server,
            schema_version: row.schema_version,
            generation: row.generation,
            created_at: row.created_at,
            updated_at: row.updated_at,
            delete_after: row.delete_after,
            tokens_from: row.tokens_from,
            erasure: None,
        }
    }

    /// With its server's name, and what remains of one that is deleted.
    async fn read(db: &impl ConnectionTrait, row: tenants::Model) -> Result<Self, DbErr> {
        let erasure = if row.status == Status::Deleted.as_str() {
            erasures::Entity::find_by_id(row.id).one(db).await?.map(Erasure::from)
        } else {
            None
        };
        let server = match row.server_id {
            Some(id) => servers::Entity::find_by_id(id).one(db).await?.map(|server| server.name),
            None => None,
        };
        Ok(Self { erasure, ..Self::of(row, server) })
    }
}

/// The tenant of this id or slug. A deleted one keeps its id and gives up its slug.
pub(super) async fn find(db: &impl ConnectionTrait, name: &str) -> Result<tenants::Model, Problem> {
    look_up(db, name, false).await
}

/// As [`find`], and nobody else changes anything of the tenant until the change ends: whether data planes see it, and what
/// of it they see, is decided on what holds at the commit. The first lock that a change of a tenant takes, but for its
/// plan's.
pub(super) async fn find_to_change(change: &Change, name: &str) -> Result<tenants::Model, Problem> {
    look_up(change.db(), name, true).await
}

async fn look_up(db: &impl ConnectionTrait, name: &str, is_locked: bool) -> Result<tenants::Model, Problem> {
    let lock = |query: Select<tenants::Entity>| if is_locked { query.lock(LockType::NoKeyUpdate) } else { query };
    let by_id = match name.parse::<Uuid>() {
        Ok(id) => lock(tenants::Entity::find_by_id(id)).one(db).await?,
        Err(_) => None,
    };
    let by_slug = tenants::Entity::find().filter(slugs::is_of(name));
    let found = match by_id {
        Some(row) => Some(row),
        // A slug may read as an id. No id of ours does as a slug: they begin with a digit.
        None => lock(by_slug).one(db).await?,
    };
    found.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "tenant-not-found",
            "There is no tenant of that id or slug. GET /v1/tenants lists those there are.",
        )
    })
}

/// As [`find_to_change`], refusing one that is gone: nothing of it can change any more.
pub(super) async fn find_alive(change: &Change, name: &str) -> Result<tenants::Model, Problem> {
    let row = find_to_change(change, name).await?;
    if row.status == Status::Deleted.as_str() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "illegal-transition",
            "The tenant is deleted, and nothing of it can change. Create another.",
        ));
    }
    Ok(row)
}

/// The status of a row.
pub(super) fn status_of(row: &tenants::Model) -> Result<Status, Problem> {
    row.status.parse().map_err(Problem::internal)
}

pub(super) fn illegal(error: IllegalTransition) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "illegal-transition",
        format!(
            "The move is not legal: {error}. GET the tenant for its status, and its operations for what is being done."
        ),
    )
}

/// Writes a tenant's changed columns and counts the change.
pub(super) async fn save(
    change: &Change,
    row: tenants::Model,
    now: DateTime<Utc>,
    alter: impl FnOnce(&mut tenants::ActiveModel),
) -> Result<tenants::Model, Problem> {
    let (id, version) = (row.id, row.version);
    let mut changed = row.into_active_model();
    alter(&mut changed);
    changed.version = Set(version + 1);
    changed.updated_at = Set(now);
    // Conditional on the version that was read: a concurrent change is seen, not overwritten.
    tenants::Entity::update_many()
        .set(changed)
        .filter(tenants::Column::Id.eq(id))
        .filter(tenants::Column::Version.eq(version))
        .exec_with_returning(change.db())
        .await
        .map_err(slug_taken)?
        .pop()
        .ok_or_else(|| concurrent_change("tenant"))
}

/// A unique key refused the slug.
pub(super) fn slug_taken(error: DbErr) -> Problem {
    match error.sql_err() {
        Some(sea_orm::SqlErr::UniqueConstraintViolation(_)) => {
            Problem::new(StatusCode::CONFLICT, "slug-taken", "Another tenant has this slug. Choose another.")
                .with_field("slug", "is taken")
        }
        _ => error.into(),
    }
}

/// Refuses a slug that is held back from its taker, since another tenant left it.
pub(super) async fn not_held(change: &Change, slug: &Slug, taker: Option<Uuid>) -> Result<(), Problem> {
    let Some(until) = slugs::held_until(change, slug.as_str(), taker).await? else { return Ok(()) };
    let until = until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    Err(Problem::new(
        StatusCode::CONFLICT,
        "slug-held",
        format!(
            "Another tenant had this slug, and was renamed or deleted. No other tenant can take the slug until {until}. \
             Choose another."
        ),
    )
    .with_field("slug", "is held back"))
}

pub(super) fn slug(text: &str) -> Result<Slug, Problem> {
    text.parse().map_err(|error: tenancy::slug::InvalidSlug| {
        let kind = match error {
            tenancy::slug::InvalidSlug::Reserved => "slug-reserved",
            _ => "slug-invalid",
        };
        let detail = error.to_string();
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, kind, format!("The slug is not valid: {detail}."))
            .with_field("slug", detail)
    })
}

/// A text of 1 to `longest` characters, none of them a control character.
pub(super) fn text(field: &'static str, text: &str, longest: usize) -> Result<String, Problem> {
    let trimmed = text.trim();
    if (1..=longest).contains(&trimmed.chars().count()) && !trimmed.chars().any(char::is_control) {
        return Ok(trimmed.to_owned());
    }
    Err(Problem::invalid_field(field, format!("must have 1 to {longest} characters, and no control characters")))
}

pub(super) fn email(text: &str) -> Result<String, Problem> {
    let is_sound = text.len() <= 254
        && !text.chars().any(|c| c.is_control() || c.is_whitespace())
        && text.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'));
    if is_sound {
        Ok(text.to_owned())
    } else {
        Err(Problem::invalid_field("admin_email", "must be an e-mail address, such as ann@example.org"))
    }
}

/// The plan of this name, which does not change until the change ends. Plans are locked before tenants.
pub(super) async fn plan(change: &Change, name: &str) -> Result<String, Problem> {
    match plans::Entity::find_by_id(text("plan", name, 40)?).lock(LockType::Share).one(change.db()).await? {
        Some(plan) => Ok(plan.name),
        None => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "unknown-plan",
            "There is no such plan. GET /v1/plans lists those there are.",
        )
        .with_field("plan", "is unknown")),
    }
}

/// What an operator orders.
fn order(kind: Kind, tenant: Uuid, run_after: DateTime<Utc>, by: &Operator) -> Order {
    Order { kind, on: On::Tenant(tenant), run_after, is_forced: false, requested_by: by.subject.clone() }
}

/// 202 with the operation's place.
pub(super) fn accepted(tenant: Tenant, version: i64, operation: operations::Model) -> Response {
    let location = format!("/v1/operations/{}", operation.id);
    let body = TenantAndOperation { tenant, operation: Operation::ordered(operation) };
    (StatusCode::ACCEPTED, [(header::LOCATION, location)], [(header::ETAG, etag(version))], Json(body)).into_response()
}

/// 200 with the tenant and its tag.
pub(super) async fn shown(db: &impl ConnectionTrait, row: tenants::Model) -> Result<Answer, Problem> {
    let tag = etag(row.version);
    Ok(Answer::new(StatusCode::OK, &Tenant::read(db, row).await?)?.tagged(&tag))
}
