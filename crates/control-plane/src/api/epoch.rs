//! `POST /v1/epoch`: another identity for the registry's history, after it was restored from a backup. What was ordered
//! before is held. No node can have it begun.

use axum::extract::State;
use sea_orm::{EntityTrait, PaginatorTrait, QueryFilter};
use serde::Serialize;
use service::Problem;
use service::extract::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::auth::Operator;
use crate::provision::holds;
use crate::registry::entities::operations;

/// The history that data planes follow from now on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Epoch {
    epoch: Uuid,
    /// Operations that are held: `GET /v1/operations?held=true` lists them, and the `retry` of each has it go on.
    held: u64,
}

/// Gives the registry's history another identity: every data plane asks again for all that it holds, and every operation
/// that has not ended is held until its `retry`. A control plane that is started with `--restored` does the same before it
/// does anything else. It acknowledges the doctor's finding `history_lost`: from then on tenants are deleted again.
#[utoipa::path(post, path = "/v1/epoch", tag = "nodes", responses((status = 200, body = Epoch)))]
pub(super) async fn begin(State(api): State<Api>, _: Operator) -> Result<Json<Epoch>, Problem> {
    let registry = &api.plane.registry;
    let old = registry.history().await?.epoch;
    let epoch = registry.begin_epoch(old).await?.epoch;
    let held = operations::Entity::find().filter(holds()).count(registry.db()).await?;
    tracing::warn!(%old, %epoch, held, "an operator began another history");
    Ok(Json(Epoch { epoch, held }))
}
