//! What a rollout that is under way is told: pause, resume, abort, retry.

use axum::extract::State;
use http::StatusCode;
use sea_orm::EntityTrait as _;
use service::Problem;
use service::extract::Path;
use service::problem::ProblemBody;
use uuid::Uuid;

use super::Rollout;
use crate::api::Api;
use crate::api::auth::Operator;
use crate::api::once::{Answer, Ticket};
use crate::audit::Deed;
use crate::fleet;
use crate::registry::change::Change;
use crate::registry::entities::rollouts;

/// Nothing new begins within a second; what is in flight finishes.
#[utoipa::path(
    post, path = "/v1/rollouts/{id}/pause", tag = "fleet",
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Rollout), (status = 404, body = ProblemBody),
              (status = 409, description = "It is not running", body = ProblemBody))
)]
pub(crate) async fn pause(
    State(api): State<Api>,
    operator: Operator,
    Path(id): Path<Uuid>,
    ticket: Ticket,
) -> Result<Answer, Problem> {
    let told = Told::begin(&api, id, ticket).await?;
    let row = fleet::pause(&told.change, id, &operator.subject).await?;
    told.end("rollout.paused", row).await
}

/// Goes on after a pause: into the next wave, where that was waited for.
#[utoipa::path(
    post, path = "/v1/rollouts/{id}/resume", tag = "fleet",
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Rollout), (status = 404, body = ProblemBody),
              (status = 409, description = "It is not paused", body = ProblemBody))
)]
pub(crate) async fn resume(
    State(api): State<Api>,
    _: Operator,
    Path(id): Path<Uuid>,
    ticket: Ticket,
) -> Result<Answer, Problem> {
    let mut told = Told::begin(&api, id, ticket).await?;
    let row = fleet::resume(&mut told.change, id).await?;
    told.end("rollout.resumed", row).await
}

/// Gives it up: what has not begun is skipped, what is in flight finishes, what is done stays.
#[utoipa::path(
    post, path = "/v1/rollouts/{id}/abort", tag = "fleet",
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Rollout), (status = 404, body = ProblemBody),
              (status = 409, description = "It has ended", body = ProblemBody))
)]
pub(crate) async fn abort(
    State(api): State<Api>,
    _: Operator,
    Path(id): Path<Uuid>,
    ticket: Ticket,
) -> Result<Answer, Problem> {
    let told = Told::begin(&api, id, ticket).await?;
    let row = fleet::abort(&told.change, id).await?;
    told.end("rollout.aborted", row).await
}

/// Tries the targets that failed again, and goes on.
#[utoipa::path(
    post, path = "/v1/rollouts/{id}/retry", tag = "fleet",
    params(("id" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Rollout), (status = 404, body = ProblemBody),
              (status = 409, description = "None of its targets failed, or it was given up", body = ProblemBody))
)]
pub(crate) async fn retry(
    State(api): State<Api>,
    _: Operator,
    Path(id): Path<Uuid>,
    ticket: Ticket,
) -> Result<Answer, Problem> {
    let told = Told::begin(&api, id, ticket).await?;
    let row = fleet::retry(&told.change, id).await?;
    told.end("rollout.retried", row).await
}

/// A rollout that is being told something.
struct Told<'a> {
    api: &'a Api,
    change: Change,
    before: Rollout,
    ticket: Ticket,
}

impl<'a> Told<'a> {
    async fn begin(api: &'a Api, id: Uuid, ticket: Ticket) -> Result<Self, Problem> {
        let change = api.plane.registry.change().await?;
        let row = rollouts::Entity::find_by_id(id).one(change.db()).await?.ok_or_else(fleet::not_found)?;
        let before = Rollout::read(change.db(), row, change.epoch().await?).await?;
        Ok(Self { api, change, before, ticket })
    }

    async fn end(self, action: &'static str, row: rollouts::Model) -> Result<Answer, Problem> {
        let Self { api, mut change, before, mut ticket } = self;
        let id = row.id;
        let now = Rollout::read(change.db(), row, change.epoch().await?).await?;
        change.audit(Deed::on_platform(action, id.to_string()).changed(&before, &now));
        let answer = Answer::new(StatusCode::OK, &now)?;
        ticket.record(&change, &answer).await?;
        change.commit().await?;
        api.plane.fleet.notify_one();
        Ok(answer)
    }
}
