//! `GET /audit` below the product's mount: a tenant's own trail, for a principal who may read it.

use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::{Json, Query};
use service::problem::ProblemBody;
use std::time::Duration;
use tenancy::audit::{READ_SCOPE, Record};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use crate::routes::{Control, ControlError};
use crate::session::{Scope, Scoped};

/// Freehold's own route beside the product's.
pub(crate) fn routes(control: Control) -> OpenApiRouter {
    OpenApiRouter::new().routes(utoipa_axum::routes!(trail)).with_state(control)
}

/// May read the tenant's trail.
struct ReadAudit;

impl Scope for ReadAudit {
    const NAME: &'static str = READ_SCOPE;
}

/// Which page.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct TrailQuery {
    /// Items at most, 1 to 200; 50 unless told.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One page of the trail.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct Trail {
    /// The newest first.
    items: Vec<Record>,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// Lists what was done to the tenant and in its name, the newest first. It needs the scope `audit:read`.
#[utoipa::path(
    get, path = "/audit", tag = "audit", params(TrailQuery),
    responses((status = 200, body = Trail), (status = 400, body = ProblemBody), (status = 403, body = ProblemBody),
              (status = 503, description = "The control plane does not answer", body = ProblemBody))
)]
async fn trail(
    session: Scoped<ReadAudit>,
    State(control): State<Control>,
    Query(query): Query<TrailQuery>,
) -> Result<Json<Trail>, Problem> {
    let trail = control.trail(session.tenant(), query.limit, query.cursor.as_deref()).await;
    trail.map(Json).map_err(|error| match error {
        ControlError::Refused(StatusCode::BAD_REQUEST) => Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid-query",
            "The query string is not valid: `limit` is from 1 to 200, and `cursor` a next_cursor of this list.",
        ),
        error => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "trail-unavailable",
            "The trail is kept by the control plane, which does not answer now. Send the request again later.",
        )
        .with_retry_after(Duration::from_secs(5))
        .with_source(error),
    })
}
