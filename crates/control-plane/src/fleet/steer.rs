//! What an operator tells a rollout that is under way.

use http::StatusCode;
use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, SqlErr};
use service::Problem;
use uuid::Uuid;

use super::conduct::{next_wave, read, set};
use super::order::at_work;
use super::{State, TargetState};
use crate::registry::change::Change;
use crate::registry::entities::{rollout_targets, rollouts};

/// Nothing new begins until it is resumed.
pub(crate) async fn pause(change: &Change, id: Uuid, by: &str) -> Result<rollouts::Model, Problem> {
    let rollout = lock(change, id).await?;
    if rollout.state != State::Running.as_str() {
        return Err(illegal(&rollout, "be paused", "only one that is running is"));
    }
    let paused = [
        (rollouts::Column::State, Expr::value(State::Paused.as_str())),
        (rollouts::Column::Note, Expr::value(format!("paused by {by}"))),
    ];
    set(change, id, paused).await?;
    Ok(read(change, id).await?)
}

/// Goes on after a pause, into the next wave if that was waited for. One that was ordered before the registry was restored
/// goes on too.
pub(crate) async fn resume(change: &mut Change, id: Uuid) -> Result<rollouts::Model, Problem> {
    let rollout = lock(change, id).await?;
    let epoch = change.epoch().await?;
    let is_held = rollout.state == State::Running.as_str() && rollout.epoch != epoch;
    if rollout.state != State::Paused.as_str() && !is_held {
        return Err(illegal(&rollout, "be resumed", "only one that is paused is; one that failed is retried"));
    }
    let is_awaited = rollout.is_awaited;
    set(
        change,
        id,
        [
            (rollouts::Column::State, Expr::value(State::Running.as_str())),
            (rollouts::Column::Note, Expr::value(None::<String>)),
            (rollouts::Column::Epoch, Expr::value(epoch)),
            // Nobody counted meanwhile: canaries that were watched are watched anew.
            (rollouts::Column::WatchedFrom, Expr::value(None::<chrono::DateTime<chrono::Utc>>)),
        ],
    )
    .await?;
    if is_awaited {
        next_wave(change, rollout).await?;
    }
    Ok(read(change, id).await?)
}

/// Gives it up: what has not begun is skipped, what is in flight finishes, and what is done stays.
pub(crate) async fn abort(change: &Change, id: Uuid) -> Result<rollouts::Model, Problem> {
    let rollout = lock(change, id).await?;
    if [State::Done, State::Aborted].iter().any(|ended| rollout.state == ended.as_str()) {
        return Err(illegal(&rollout, "be given up", "it has ended"));
    }
    rollout_targets::Entity::update_many()
        .col_expr(rollout_targets::Column::State, Expr::value(TargetState::Skipped.as_str()))
        .col_expr(rollout_targets::Column::Error, Expr::value("the rollout was given up"))
        .col_expr(rollout_targets::Column::FinishedAt, Expr::value(change.now()))
        .filter(rollout_targets::Column::RolloutId.eq(id))
        .filter(rollout_targets::Column::State.eq(TargetState::Pending.as_str()))
        .exec(change.db())
        .await?;
    set(
        change,
        id,
        [
            (rollouts::Column::State, Expr::value(State::Aborted.as_str())),
            (rollouts::Column::Note, Expr::value(None::<String>)),
            (rollouts::Column::FinishedAt, Expr::value(change.now())),
        ],
    )
    .await?;
    Ok(read(change, id).await?)
}

/// Tries what failed again, and goes on.
pub(crate) async fn retry(change: &Change, id: Uuid) -> Result<rollouts::Model, Problem> {
    use rollout_targets::Column;

    let rollout = lock(change, id).await?;
    if rollout.state == State::Paused.as_str() {
        return Err(illegal(
            &rollout,
            "be retried",
            "resume it first; what failed can be retried at any time after that",
        ));
    }
    if rollout.state == State::Aborted.as_str() {
        return Err(illegal(&rollout, "be retried", "it was given up: order a new one"));
    }
    // What was ordered since may have taken its tenants elsewhere.
    let newer = rollouts::Entity::find().filter(rollouts::Column::Id.gt(id)).one(change.db()).await?;
    if rollout.state == State::Done.as_str() && newer.is_some() {
        return Err(illegal(&rollout, "be retried", "another was ordered since; order a new one"));
    }
    let again = rollout_targets::Entity::update_many()
        .col_expr(Column::State, Expr::value(TargetState::Pending.as_str()))
        .col_expr(Column::Attempts, Expr::value(0))
        .col_expr(Column::RunAfter, change.present())
        .col_expr(Column::FinishedAt, Expr::value(None::<chrono::DateTime<chrono::Utc>>))
        .filter(Column::RolloutId.eq(id))
        .filter(Column::State.eq(TargetState::Failed.as_str()))
        .exec(change.db())
        .await;
    match again {
        Ok(again) if again.rows_affected > 0 => {}
        Ok(_) => return Err(illegal(&rollout, "be retried", "none of its targets failed")),
        // They are targets of another one by now.
        Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => {
            return Err(at_work(None));
        }
        Err(error) => return Err(error.into()),
    }
    // They may be of waves that are over.
    let first: Option<i32> = rollout_targets::Entity::find()
        .select_only()
        .column(Column::Wave)
        .filter(Column::RolloutId.eq(id))
        .filter(Column::State.eq(TargetState::Pending.as_str()))
        .order_by_asc(Column::Wave)
        .into_tuple()
        .one(change.db())
        .await?;
    let wave = first.unwrap_or(rollout.wave).min(rollout.wave);
    set(
        change,
        id,
        [
            (rollouts::Column::State, Expr::value(State::Running.as_str())),
            (rollouts::Column::Note, Expr::value(None::<String>)),
            (rollouts::Column::Wave, Expr::value(wave)),
            (rollouts::Column::IsAwaited, Expr::value(false)),
            (rollouts::Column::RestUntil, Expr::value(None::<chrono::DateTime<chrono::Utc>>)),
            (rollouts::Column::WatchedFrom, Expr::value(None::<chrono::DateTime<chrono::Utc>>)),
            (rollouts::Column::Epoch, Expr::value(change.epoch().await?)),
            (rollouts::Column::FinishedAt, Expr::value(None::<chrono::DateTime<chrono::Utc>>)),
        ],
    )
    .await?;
    Ok(read(change, id).await?)
}

async fn lock(change: &Change, id: Uuid) -> Result<rollouts::Model, Problem> {
    let found: Result<_, DbErr> = rollouts::Entity::find_by_id(id).lock(LockType::Update).one(change.db()).await;
    found?.ok_or_else(not_found)
}

/// There is none of this id.
pub(crate) fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "rollout-not-found", "There is no such rollout. GET /v1/rollouts lists them.")
}

fn illegal(rollout: &rollouts::Model, what: &str, why: &str) -> Problem {
    let detail = format!("The rollout is {} and cannot {what}: {why}.", rollout.state);
    Problem::new(StatusCode::CONFLICT, "illegal-transition", detail)
}
