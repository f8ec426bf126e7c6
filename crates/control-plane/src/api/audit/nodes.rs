//! `/v1/audit/batches` and `/v1/audit/trail`: what data planes bring, and what they show to a tenant of its own.

use axum::extract::State;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use serde::Deserialize;
use service::Problem;
use service::extract::{Json, Query};
use service::problem::ProblemBody;
use tenancy::TenantId;
use tenancy::audit::{Batch, BatchAnswer, Chain, MAX_BATCH, Record};
use utoipa::IntoParams;

use super::{Order, page};
use crate::api::Api;
use crate::api::auth::Node;
use crate::api::page::Page;
use crate::audit;
use crate::registry::entities::records;

/// Records what a data plane noticed. A batch that was recorded already is answered as if it were now.
#[utoipa::path(
    post, path = "/v1/audit/batches", tag = "audit", request_body = Batch,
    responses((status = 200, body = BatchAnswer), (status = 422, body = ProblemBody))
)]
pub(crate) async fn take(
    State(api): State<Api>,
    _: Node,
    Json(batch): Json<Batch>,
) -> Result<Json<BatchAnswer>, Problem> {
    if batch.events.len() > MAX_BATCH {
        return Err(Problem::invalid_field("events", format!("must be at most {MAX_BATCH}")));
    }
    if !(1..=i64::MAX as u64).contains(&batch.number) {
        return Err(Problem::invalid_field("number", "must be at least 1"));
    }
    let taken = audit::take(&api.plane.registry, batch).await?;
    Ok(Json(BatchAnswer { taken }))
}

/// Which of a tenant's records.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrailQuery {
    /// Whose.
    #[param(value_type = String)]
    tenant: TenantId,
    /// Items at most, 1 to 200; 50 unless told.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Lists what is in a tenant's own chain, the newest first.
#[utoipa::path(
    get, path = "/v1/audit/trail", tag = "audit", params(TrailQuery),
    responses((status = 200, body = Page<Record>), (status = 400, body = ProblemBody))
)]
pub(crate) async fn trail(
    State(api): State<Api>,
    _: Node,
    Query(query): Query<TrailQuery>,
) -> Result<Json<Page<Record>>, Problem> {
    let own = records::Entity::find().filter(records::Column::Chain.eq(Chain::Tenant(query.tenant).to_string()));
    Ok(Json(page(&api, own, Order::Newest, query.limit, query.cursor.as_deref()).await?))
}
