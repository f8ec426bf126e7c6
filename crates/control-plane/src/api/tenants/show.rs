//! `GET /v1/tenants/{tenant}`.

use axum::extract::State;
use service::Problem;
use service::extract::Path;
use service::problem::ProblemBody;

use super::{Tenant, find, shown};
use crate::api::Api;
use crate::api::auth::Operator;
use crate::api::once::Answer;

/// Shows a tenant, with its `ETag`.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}", tag = "tenants", params(("tenant" = String, Path, description = "Id or slug")),
    responses((status = 200, body = Tenant), (status = 404, description = "No such tenant", body = ProblemBody))
)]
pub(crate) async fn show(State(api): State<Api>, _: Operator, Path(tenant): Path<String>) -> Result<Answer, Problem> {
    let db = api.plane.registry.db();
    let row = find(db, &tenant).await?;
    shown(db, row).await
}
