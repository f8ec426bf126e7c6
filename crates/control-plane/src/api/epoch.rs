//! `POST /v1/epoch`: another identity for the registry's history, after it was restored from a backup.

use axum::extract::State;
use serde::Serialize;
use service::Problem;
use service::extract::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::auth::Operator;

/// The history that data planes follow from now on.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Epoch {
    epoch: Uuid,
}

/// Gives the registry's history another identity: every data plane asks again for all that it holds. Harmless at any time;
/// needed once a registry was restored from a backup, since numbers alone may not tell that.
#[utoipa::path(post, path = "/v1/epoch", tag = "nodes", responses((status = 200, body = Epoch)))]
pub(super) async fn begin(State(api): State<Api>, _: Operator) -> Result<Json<Epoch>, Problem> {
    let registry = &api.plane.registry;
    let old = registry.history().await?.epoch;
    let epoch = registry.begin_epoch(old).await?.epoch;
    tracing::warn!(%old, %epoch, audit = "epoch-begun", "an operator began another history");
    Ok(Json(Epoch { epoch }))
}
