//! A rollout's targets.

use axum::extract::State;
use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::{Json, Path, Query};
use service::problem::ProblemBody;
use std::collections::HashMap;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::Api;
use crate::api::auth::Operator;
use crate::api::page::{Page, after, invalid, limit};
use crate::fleet::{self, TargetState};
use crate::registry::entities::{rollout_targets, rollouts, tenants};

/// One tenant's database in a rollout.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Target {
    /// The tenant's id.
    tenant: Uuid,
    slug: Option<String>,
    wave: i32,
    /// `pending`, `running`, `done`, `failed` or `skipped`.
    state: String,
    attempts: i32,
    /// The schema version that the database had when the rollout was ordered.
    version_before: i32,
    /// The one that it was last seen to have.
    version_after: Option<i32>,
    /// How long the last attempt took.
    duration_ms: Option<i64>,
    /// Why it failed or waits, and what to do.
    error: Option<String>,
    finished_at: Option<DateTime<Utc>>,
    /// Requests of a canary that were counted at the health gate, and those of them that were answered with a 5xx.
    requests: i64,
    errors: i64,
}

/// Which targets.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetsQuery {
    /// In this state.
    state: Option<String>,
    /// Of this wave, from 0.
    wave: Option<i32>,
    /// Items at most, 1 to 200; 50 unless told.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Lists a rollout's targets.
#[utoipa::path(
    get, path = "/v1/rollouts/{id}/targets", tag = "fleet", params(("id" = Uuid, Path), TargetsQuery),
    responses((status = 200, body = Page<Target>), (status = 400, body = ProblemBody), (status = 404, body = ProblemBody))
)]
pub(crate) async fn targets(
    State(api): State<Api>,
    _: Operator,
    Path(id): Path<Uuid>,
    Query(query): Query<TargetsQuery>,
) -> Result<Json<Page<Target>>, Problem> {
    let db = api.plane.registry.db();
    let limit = limit(query.limit)?;
    if rollouts::Entity::find_by_id(id).one(db).await?.is_none() {
        return Err(fleet::not_found());
    }
    let mut select = rollout_targets::Entity::find().filter(rollout_targets::Column::RolloutId.eq(id));
    if let Some(state) = query.state {
        let known = "must be pending, running, done, failed or skipped";
        let state = TargetState::of(&state).ok_or_else(|| invalid("state", known))?;
        select = select.filter(rollout_targets::Column::State.eq(state.as_str()));
    }
    if let Some(wave) = query.wave {
        select = select.filter(rollout_targets::Column::Wave.eq(wave));
    }
    if let Some(after) = after::<Uuid>(query.cursor.as_deref())? {
        select = select.filter(rollout_targets::Column::TenantId.gt(after));
    }
    let rows = select.order_by_asc(rollout_targets::Column::TenantId).limit(limit + 1).all(db).await?;
    let slugs: HashMap<Uuid, String> = tenants::Entity::find()
        .select_only()
        .column(tenants::Column::Id)
        .column(tenants::Column::Slug)
        .filter(tenants::Column::Id.is_in(rows.iter().map(|row| row.tenant_id)))
        .into_tuple::<(Uuid, String)>()
        .all(db)
        .await?
        .into_iter()
        .collect();
    let target = |row: rollout_targets::Model| Target {
        tenant: row.tenant_id,
        slug: slugs.get(&row.tenant_id).cloned(),
        wave: row.wave,
        state: row.state,
        attempts: row.attempts,
        version_before: row.version_before,
        version_after: row.version_after,
        duration_ms: row.duration_ms,
        error: row.error,
        finished_at: row.finished_at,
        requests: row.requests,
        errors: row.errors,
    };
    Ok(Json(Page::of(rows, limit, |row| row.tenant_id.to_string(), target)))
}
