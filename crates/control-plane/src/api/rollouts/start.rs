//! A rollout is ordered.

use axum::extract::State;
use http::StatusCode;
use serde::Deserialize;
use service::Problem;
use service::problem::ProblemBody;
use utoipa::ToSchema;

use super::Rollout;
use crate::api::Api;
use crate::api::auth::Operator;
use crate::api::once::{Answer, Once};
use crate::audit::Deed;
use crate::fleet::{self, Order, Selection, Settings};
use crate::plane::Plane;

/// What to roll out, to whom, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRollout {
    /// The schema version that databases get: how many of the product's migrations they have then. All that the control plane
    /// contains, unless told.
    #[serde(default)]
    version: Option<u32>,
    /// Takes migrations back, where they allow it.
    #[serde(default)]
    down: bool,
    #[serde(default)]
    select: Selection,
    #[serde(default)]
    settings: Settings,
}

impl NewRollout {
    /// With what was not told.
    pub(super) fn order(self, plane: &Plane) -> Order {
        let contained = u32::try_from(plane.schema.migrations().len()).unwrap_or(u32::MAX);
        let version = self.version.unwrap_or(contained);
        Order { version, is_down: self.down, selection: self.select, settings: self.settings }
    }
}

/// Begins a rollout. It is done at once when no tenant is behind.
#[utoipa::path(
    post, path = "/v1/rollouts", tag = "fleet", request_body = NewRollout,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, description = "It was ordered, and goes on by itself", body = Rollout),
              (status = 409, description = "Another one is at work on some of its tenants, or migrations are missing", body = ProblemBody),
              (status = 422, body = ProblemBody))
)]
pub(crate) async fn start(
    State(api): State<Api>,
    operator: Operator,
    Once { body, mut ticket }: Once<NewRollout>,
) -> Result<Answer, Problem> {
    let plane = &api.plane;
    let order = body.order(plane);
    let mut change = plane.registry.change().await?;
    let row = fleet::order(plane, &mut change, &order, &operator.subject).await?;
    let (id, epoch) = (row.id, row.epoch);
    let rollout = Rollout::read(change.db(), row, epoch).await?;
    change.audit(Deed::on_platform("rollout.ordered", id.to_string()).after(&rollout));
    let answer = Answer::new(StatusCode::CREATED, &rollout)?.at(format!("/v1/rollouts/{id}"));
    ticket.record(&change, &answer).await?;
    change.commit().await?;
    plane.fleet.notify_one();
    Ok(answer)
}
