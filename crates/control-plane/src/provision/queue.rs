//! Operations as others see them: written in the caller's transaction, called off, started again, waited for.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::StatusCode;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, ExprTrait, IntoActiveModel,
    QueryFilter,
};
use service::Problem;
use tenancy::Status;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::held::{self, is_held};
use super::{Kind, On, State, StepState};
use crate::plane::Plane;
use crate::registry::change::Change;
use crate::registry::entities::{operation_steps, operations, tenants};

/// When a waiter first looks for an end that came about in another process; each further look is later.
const FIRST_GLANCE: Duration = Duration::from_millis(100);
/// Longest from one look to the next.
const LONGEST: Duration = Duration::from_secs(1);

/// What is to be done with what, and on whose word.
pub(crate) struct Order {
    pub(crate) kind: Kind,
    pub(crate) on: On,
    /// When it is due.
    pub(crate) run_after: DateTime<Utc>,
    /// Waits for no data plane.
    pub(crate) is_forced: bool,
    pub(crate) requested_by: String,
}

/// Writes an operation with its steps in the caller's transaction. Ring the plane's [`super::Wake`] after the commit.
pub(crate) async fn enqueue(change: &Change, order: Order) -> Result<operations::Model, DbErr> {
    let id = Uuid::now_v7();
    let kind = order.kind;
    let operation = operations::ActiveModel {
        id: Set(id),
        kind: Set(kind.as_str().to_owned()),
        tenant_id: Set(order.on.tenant()),
        server_id: Set(order.on.server()),
        state: Set(State::Pending.as_str().to_owned()),
        error: Set(None),
        lease_holder: Set(None),
        lease_until: Set(None),
        fence: Set(0),
        run_after: Set(order.run_after),
        created_at: Set(change.now()),
        finished_at: Set(None),
        is_forced: Set(order.is_forced),
        awaited: Set(None),
        note: Set(None),
        requested_by: Set(Some(order.requested_by)),
        epoch: Set(Some(change.epoch().await?)),
    };
    let operation = operation.insert(change.db()).await?;
    let steps = (1..).zip(kind.steps(order.on)).map(|(position, step)| operation_steps::ActiveModel {
        operation_id: Set(id),
        position: Set(position),
        name: Set(step.name().to_owned()),
        state: Set(StepState::Pending.as_str().to_owned()),
        attempts: Set(0),
        error: Set(None),
    });
    operation_steps::Entity::insert_many(steps).exec_without_returning(change.db()).await?;
    Ok(operation)
}

/// The operation of this kind that is at work on a tenant or server, or waits to be.
pub(crate) async fn open(change: &Change, on: On, kind: Kind) -> Result<Option<operations::Model>, DbErr> {
    open_in(change.db(), on, kind).await
}

/// As [`open`], without a change.
pub(crate) async fn open_in(db: &impl ConnectionTrait, on: On, kind: Kind) -> Result<Option<operations::Model>, DbErr> {
    operations::Entity::find()
        .filter(on.operations())
        .filter(operations::Column::State.is_not_in(State::ENDS.map(State::as_str)))
        .filter(operations::Column::Kind.eq(kind.as_str()))
        .one(db)
        .await
}

/// Has an operation wait for no data plane from now on.
pub(crate) async fn force(change: &Change, operation: operations::Model) -> Result<operations::Model, DbErr> {
    let mut operation = operation.into_active_model();
    operation.is_forced = Set(true);
    operation.run_after = Set(change.now());
    operation.update(change.db()).await
}

/// All operations on these tenants that have not ended.
pub(crate) async fn unfinished(
    db: &impl ConnectionTrait,
    tenants: impl IntoIterator<Item = Uuid>,
) -> Result<Vec<operations::Model>, DbErr> {
    operations::Entity::find()
        .filter(operations::Column::TenantId.is_in(tenants))
        .filter(operations::Column::State.is_not_in(State::ENDS.map(State::as_str)))
        .all(db)
        .await
}

/// All operations on a tenant or server that have not ended.
pub(super) async fn unfinished_on(db: &impl ConnectionTrait, on: On) -> Result<Vec<operations::Model>, DbErr> {
    operations::Entity::find()
        .filter(on.operations())
        .filter(operations::Column::State.is_not_in(State::ENDS.map(State::as_str)))
        .all(db)
        .await
}

/// Whether nobody has begun an operation, and nobody will before this moment.
pub(crate) fn rests(operation: &operations::Model, until: DateTime<Utc>) -> bool {
    operation.state == State::Pending.as_str() && operation.run_after > until
}

/// Calls off a tenant's deletion that nobody has begun; says whether there was one.
pub(crate) async fn cancel_delete(change: &Change, tenant: Uuid) -> Result<bool, DbErr> {
    let cancelled = operations::Entity::update_many()
        .col_expr(operations::Column::State, Expr::value(State::Cancelled.as_str()))
        .col_expr(operations::Column::FinishedAt, Expr::value(change.now()))
        .filter(operations::Column::TenantId.eq(tenant))
        .filter(operations::Column::Kind.eq(Kind::Delete.as_str()))
        .filter(operations::Column::State.eq(State::Pending.as_str()))
        .exec(change.db())
        .await?;
    Ok(cancelled.rows_affected > 0)
}

/// Has a held operation go on, or starts a failed creation again, with all of its steps before it. Ring the plane's [`super::Wake`] after the commit.
pub(crate) async fn retry(change: &Change, id: Uuid, now: DateTime<Utc>) -> Result<operations::Model, Problem> {
    let operation = operations::Entity::find_by_id(id).one(change.db()).await?.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "operation-not-found",
            "There is no such operation. GET /v1/operations lists them.",
        )
    })?;
    let epoch = change.epoch().await?;
    if is_held(&operation, epoch) {
        return held::go_on(change, operation, epoch).await;
    }
    let again = operations::Entity::update_many()
        .col_expr(operations::Column::State, Expr::value(State::Pending.as_str()))
        .col_expr(operations::Column::Error, Expr::value(None::<String>))
        .col_expr(operations::Column::FinishedAt, Expr::value(None::<DateTime<Utc>>))
        .col_expr(operations::Column::RunAfter, Expr::value(now))
        .col_expr(operations::Column::Epoch, Expr::value(epoch))
        .filter(operations::Column::Id.eq(id))
        .filter(operations::Column::Kind.eq(Kind::Create.as_str()))
        .filter(operations::Column::State.eq(State::Failed.as_str()))
        .exec_with_returning(change.db())
        .await?
        .pop()
        .ok_or_else(|| {
            not_legal("Only a creation that failed can be started again, and an operation that is held go on.")
        })?;
    let tenant = tenants::Entity::update_many()
        .col_expr(tenants::Column::Status, Expr::value(Status::Provisioning.as_str()))
        .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
        .col_expr(tenants::Column::UpdatedAt, Expr::value(now))
        .filter(tenants::Column::Id.eq(again.tenant_id))
        .filter(tenants::Column::Status.eq(Status::Failed.as_str()))
        .exec(change.db())
        .await?;
    if tenant.rows_affected == 0 {
        return Err(not_legal("The tenant was deleted since. Create it anew."));
    }
    operation_steps::Entity::update_many()
        .col_expr(operation_steps::Column::State, Expr::value(StepState::Pending.as_str()))
        .col_expr(operation_steps::Column::Attempts, Expr::value(0))
        .col_expr(operation_steps::Column::Error, Expr::value(None::<String>))
        .filter(operation_steps::Column::OperationId.eq(id))
        .exec(change.db())
        .await?;
    Ok(again)
}

fn not_legal(detail: &str) -> Problem {
    Problem::new(StatusCode::CONFLICT, "illegal-transition", detail)
}

/// Waits until an operation has ended, or for so long; answers it as it is then.
pub(crate) async fn wait(plane: &Plane, id: Uuid, at_most: Duration) -> Result<operations::Model, DbErr> {
    let deadline = Instant::now() + at_most;
    let mut glance = FIRST_GLANCE;
    let mut ends = plane.wake.ends();
    loop {
        let operation = operations::Entity::find_by_id(id)
            .one(plane.registry.db())
            .await?
            .ok_or_else(|| DbErr::RecordNotFound("the operation is gone from the registry".to_owned()))?;
        let now = Instant::now();
        if State::has_ended(&operation.state) || now >= deadline || plane.stopping.is_cancelled() {
            return Ok(operation);
        }
        let until = deadline.min(now + glance);
        glance = glance.mul_f32(1.5).min(LONGEST);
        let heard = async {
            loop {
                match ends.recv().await {
                    Ok(ended) if ended != id => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => return,
                    Err(RecvError::Closed) => return sleep(FIRST_GLANCE).await,
                }
            }
        };
        tokio::select! {
            // Heard, or time for a glance: either way the row says how it is.
            _ = timeout_at(until, heard) => {}
            () = plane.stopping.cancelled() => {}
        }
    }
}
