//! `POST /v1/rewrap`: seals anew what is not sealed under the primary key.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::Json;
use service::problem::ProblemBody;
use utoipa::ToSchema;

use super::Api;
use super::auth::Operator;
use crate::audit::Deed;
use crate::rewrap;

/// Nothing is to be chosen.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rewrap {}

/// What was done, and what is left.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Progress {
    /// Texts that are sealed under the primary key now, and were not before.
    rewrapped: u64,
    /// Texts that are yet to be: call again until there are none.
    remaining: u64,
    /// Texts that no key of the ring opens, among those looked at.
    unopened: u64,
}

/// Seals every database URL anew under the primary key of its ring, up to a bound: call it until nothing remains. It may be
/// broken off and begun again. No generation rises, and no data plane hears of it.
#[utoipa::path(
    post, path = "/v1/rewrap", tag = "seal", request_body = Rewrap,
    responses((status = 200, body = Progress), (status = 422, body = ProblemBody))
)]
pub(super) async fn rewrap(
    State(api): State<Api>,
    _: Operator,
    Json(_nothing): Json<Rewrap>,
) -> Result<Json<Progress>, Problem> {
    let rewrap::Progress { rewrapped, remaining, unopened } = rewrap::rewrap(&api.plane).await?;
    let progress = Progress { rewrapped, remaining, unopened };
    let mut change = api.plane.registry.change().await?;
    change.audit(Deed::on_platform("seal.rewrapped", "database-urls").after(&progress));
    change.commit().await?;
    Ok(Json(progress))
}
