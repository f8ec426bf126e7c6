//! What came of attempts, written down for many of them in one commit: a commit costs more than most migrations do.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::target::{End, Outcome};
use super::{State, TargetState, stored};
use crate::plane::Plane;
use crate::registry::change::Change;
use crate::registry::entities::{rollout_targets, rollouts, tenants};

/// Outcomes that are written down together, at most.
pub(super) const AT_ONCE: usize = 64;
/// The first pause of a target that somebody was in the way of; it doubles, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long to leave a target alone after so many attempts; `jitter` is from 0 to 1, so that what failed together does not come
/// back together.
fn pause(attempts: i32, jitter: f64) -> Duration {
    let doubled = 1_u32.checked_shl(attempts.unsigned_abs().saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE).mul_f64(0.5 + jitter / 2.0)
}

/// Writes down what came of attempts whose leases are still this process'. Others' are nobody's news.
pub(super) async fn record<'a>(plane: &Plane, outcomes: impl Iterator<Item = &'a Outcome>) -> Result<(), DbErr> {
    use rollout_targets::Column;

    let mut outcomes: Vec<&Outcome> = outcomes.collect();
    // In the order in which every change locks tenants.
    outcomes.sort_by_key(|outcome| outcome.tenant);
    let mut change = plane.registry.change().await?;
    let now = change.now();
    let given_up = given_up(&change, &outcomes).await?;
    for outcome in outcomes {
        let (state, text) = match &outcome.end {
            End::Done => (TargetState::Done, None),
            End::Failed(text) => (TargetState::Failed, Some(text)),
            End::Again(text) if given_up.contains(&outcome.rollout) => (TargetState::Skipped, Some(text)),
            End::Again(text) if outcome.is_last => (TargetState::Failed, Some(text)),
            End::Again(text) => (TargetState::Pending, Some(text)),
            End::Skipped(text) => (TargetState::Skipped, Some(text)),
        };
        let ended = (state != TargetState::Pending).then_some(now);
        let took = i64::try_from(outcome.took.as_millis()).unwrap_or(i64::MAX);
        let mut write = rollout_targets::Entity::update_many();
        if let Some(has) = outcome.has {
            write = write.col_expr(Column::VersionAfter, Expr::value(stored(has)));
        }
        let written = write
            .col_expr(Column::State, Expr::value(state.as_str()))
            .col_expr(Column::Error, Expr::value(text.map(String::as_str)))
            .col_expr(Column::DurationMs, Expr::value(took))
            .col_expr(Column::FinishedAt, Expr::value(ended))
            .col_expr(Column::RunAfter, plane.registry.after(pause(outcome.attempts, rand::random_range(0.0..1.0))))
            .col_expr(Column::LeaseHolder, Expr::value(None::<Uuid>))
            .col_expr(Column::LeaseUntil, Expr::value(None::<chrono::DateTime<chrono::Utc>>))
            .filter(Column::RolloutId.eq(outcome.rollout))
            .filter(Column::TenantId.eq(outcome.tenant))
            .filter(Column::Fence.eq(outcome.fence))
            .filter(Column::LeaseHolder.eq(plane.id))
            .filter(Column::State.eq(TargetState::Running.as_str()))
            .exec(change.db())
            .await?;
        if written.rows_affected == 0 {
            tracing::info!(tenant = %outcome.tenant, rollout = %outcome.rollout, "a target was taken over meanwhile");
            continue;
        }
        if let Some(has) = outcome.has {
            let changed = tenants::Entity::update_many()
                .col_expr(tenants::Column::SchemaVersion, Expr::value(stored(has)))
                .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
                .col_expr(tenants::Column::UpdatedAt, Expr::value(now))
                .filter(tenants::Column::Id.eq(outcome.tenant))
                .filter(tenants::Column::SchemaVersion.ne(stored(has)))
                .exec(change.db())
                .await?;
            if changed.rows_affected > 0 {
                change.touch(outcome.tenant);
            }
        }
    }
    change.commit().await.map(drop)
}

/// Which of their rollouts were given up: nothing of those is tried again. None is, before the change has ended.
async fn given_up(change: &Change, outcomes: &[&Outcome]) -> Result<HashSet<Uuid>, DbErr> {
    let again: BTreeSet<Uuid> =
        outcomes.iter().filter(|it| matches!(it.end, End::Again(_))).map(|outcome| outcome.rollout).collect();
    if again.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = rollouts::Entity::find()
        .filter(rollouts::Column::Id.is_in(again))
        .order_by_asc(rollouts::Column::Id)
        .lock(LockType::Share)
        .all(change.db())
        .await?;
    Ok(rows.into_iter().filter(|row| row.state == State::Aborted.as_str()).map(|row| row.id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_up_to_a_bound_and_is_never_none() {
        let millis: Vec<u128> = [1, 2, 3, 8, 20, i32::MAX].map(|attempts| pause(attempts, 1.0).as_millis()).into();
        assert_eq!(millis, [250, 500, 1_000, 30_000, 30_000, 30_000]);
        assert_eq!(pause(1, 0.0).as_millis(), 125);
    }
}
