//! `/v1/operations`: long actions and how far they are.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::{Json, Path, Query};
use service::problem::ProblemBody;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::auth::Operator;
use super::once::{Answer, Ticket};
use super::page::{Page, after, invalid, limit};
use super::{servers, tenants};
use crate::audit::Deed;
use crate::provision::{self, On, is_held};
use crate::registry::entities::{operation_steps, operations};

/// A long action on a tenant or a server.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Operation {
    id: Uuid,
    /// `create`, `delete`, `rotate`, `fix` or `move`.
    kind: String,
    /// The id of the tenant that it is on; null for one on a server.
    tenant: Option<Uuid>,
    /// The id of the server that a fix or a move is on; null for one on a tenant.
    server: Option<Uuid>,
    /// `pending`, `running`, `undoing`, `done`, `failed` or `cancelled`.
    state: String,
    /// Why it failed or waits, and what to do.
    error: Option<String>,
    /// What its reader should know of how it went: whom a forced rotation cut off.
    note: Option<String>,
    /// It was ordered before the registry's history got another identity: it goes on only when it is told to, by its `retry`.
    held: bool,
    /// Waits for no data plane.
    is_forced: bool,
    /// On whose word.
    requested_by: Option<String>,
    created_at: DateTime<Utc>,
    /// When it is due.
    run_after: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    /// Its steps, in their order; only where one operation is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Step {
    name: String,
    /// `pending`, `done`, `failed` or `undone`.
    state: String,
    attempts: i32,
    error: Option<String>,
}

impl Operation {
    /// As the registry's present epoch has it; without its steps.
    fn of(row: operations::Model, epoch: Uuid) -> Self {
        Self { held: is_held(&row, epoch), ..Self::ordered(row) }
    }

    /// One that was ordered, or told to go on, just now; without its steps.
    pub(super) fn ordered(row: operations::Model) -> Self {
        Self {
            held: false,
            id: row.id,
            kind: row.kind,
            tenant: row.tenant_id,
            server: row.server_id,
            state: row.state,
            error: row.error,
            note: row.note,
            is_forced: row.is_forced,
            requested_by: row.requested_by,
            created_at: row.created_at,
            run_after: row.run_after,
            finished_at: row.finished_at,
            steps: Vec::new(),
        }
    }
}

/// Which operations.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationsQuery {
    /// On this tenant, by id or slug.
    tenant: Option<String>,
    /// On this server, by its name.
    server: Option<String>,
    /// In this state.
    state: Option<String>,
    /// Only those that are held, or only those that are not.
    held: Option<bool>,
    /// Items at most, 1 to 200; 50 unless told.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Lists operations, the newest first.
#[utoipa::path(
    get, path = "/v1/operations", tag = "operations", params(OperationsQuery),
    responses((status = 200, body = Page<Operation>), (status = 400, body = ProblemBody))
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Operator,
    Query(query): Query<OperationsQuery>,
) -> Result<Json<Page<Operation>>, Problem> {
    let db = api.plane.registry.db();
    let limit = limit(query.limit)?;
    let mut select = operations::Entity::find();
    if let Some(tenant) = query.tenant {
        select = select.filter(operations::Column::TenantId.eq(tenants::find(db, &tenant).await?.id));
    }
    if let Some(server) = query.server {
        select = select.filter(operations::Column::ServerId.eq(servers::named(db, &server).await?.id));
    }
    if let Some(state) = query.state {
        if !provision::is_state(&state) {
            return Err(invalid("state", "must be pending, running, undoing, done, failed or cancelled"));
        }
        select = select.filter(operations::Column::State.eq(state));
    }
    if let Some(held) = query.held {
        select = select.filter(if held { provision::holds() } else { provision::holds().not() });
    }
    // Ids are UUIDv7: their order is that of creation.
    if let Some(before) = after::<Uuid>(query.cursor.as_deref())? {
        select = select.filter(operations::Column::Id.lt(before));
    }
    let rows = select.order_by_desc(operations::Column::Id).limit(limit + 1).all(db).await?;
    let epoch = api.plane.registry.history().await?.epoch;
    Ok(Json(Page::of(rows, limit, |row| row.id.to_string(), |row| Operation::of(row, epoch))))
}

/// Shows an operation with its steps.
#[utoipa::path(
    get, path = "/v1/operations/{id}", tag = "operations", params(("id" = Uuid, Path)),
    responses((status = 200, body = Operation), (status = 404, body = ProblemBody))
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Operator,
    Path(id): Path<Uuid>,
) -> Result<Json<Operation>, Problem> {
    let db = api.plane.registry.db();
    let row = operations::Entity::find_by_id(id).one(db).await?.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "operation-not-found",
            "There is no such operation. GET /v1/operations lists them.",
        )
    })?;
    let steps = operation_steps::Entity::find()
        .filter(operation_steps::Column::OperationId.eq(id))
        .order_by_asc(operation_steps::Column::Position)
        .all(db)
        .await?;
    let steps = steps
        .into_iter()
        .map(|step| Step { name: step.name, state: step.state, attempts: step.attempts, error: step.error })
        .collect();
    let epoch = api.plane.registry.history().await?.epoch;
    Ok(Json(Operation { steps, ..Operation::of(row, epoch) }))
}

/// Has an operation that is held go on where it was, or starts a creation that failed again.
#[utoipa::path(
    post, path = "/v1/operations/{id}/retry", tag = "operations",
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 202, body = Operation), (status = 404, body = ProblemBody),
              (status = 409, description = "It has not failed, and is not held; or another one of its tenant goes first", body = ProblemBody))
)]
pub(super) async fn retry(State(api): State<Api>, Path(id): Path<Uuid>, mut ticket: Ticket) -> Result<Answer, Problem> {
    let registry = &api.plane.registry;
    let mut change = registry.change().await?;
    let row = provision::retry(&change, id, registry.now()).await?;
    let location = format!("/v1/operations/{}", row.id);
    let on = On::of(&row)?;
    let told = Operation::ordered(row);
    change.audit(Deed::on("operation.retried", on).after(&told));
    let answer = Answer::new(StatusCode::ACCEPTED, &told)?.at(location);
    ticket.record(&change, &answer).await?;
    change.commit().await?;
    api.plane.wake.ring();
    Ok(answer)
}
