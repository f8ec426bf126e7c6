//! What came of attempts, written down for many of them in one commit: a commit costs more than most migrations do.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::target::{End, Outcome};
use super::{State, TargetState, stored};
use crate::plane::Plane;
use crate::registry::change::Change;
use crate::registry::each::each;
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

/// What is the same of outcomes that are written down together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Alike<'a> {
    rollout: Uuid,
    /// Where their targets are then, and why.
    state: TargetState,
    text: Option<&'a str>,
    /// The version that was seen.
    has: Option<i32>,
}

/// Writes down what came of attempts whose leases are still this process'. Others' are nobody's news.
pub(super) async fn record<'a>(plane: &Plane, outcomes: impl Iterator<Item = &'a Outcome>) -> Result<(), DbErr> {
    let mut change = plane.registry.change().await?;
    let outcomes: Vec<&Outcome> = outcomes.collect();
    // Rollouts before their targets, as whoever takes targets locks them.
    let given_up = given_up(&change, &outcomes).await?;
    let outcomes = ours(plane, &change, outcomes).await?;
    let mut groups: BTreeMap<Alike<'a>, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        let (state, text) = match &outcome.end {
            End::Done => (TargetState::Done, None),
            End::Failed(text) => (TargetState::Failed, Some(text.as_str())),
            End::Again(text) if given_up.contains(&outcome.rollout) => (TargetState::Skipped, Some(text.as_str())),
            End::Again(text) if outcome.is_last => (TargetState::Failed, Some(text.as_str())),
            End::Again(text) => (TargetState::Pending, Some(text.as_str())),
            End::Skipped(text) => (TargetState::Skipped, Some(text.as_str())),
        };
        let alike = Alike { rollout: outcome.rollout, state, text, has: outcome.has.map(stored) };
        groups.entry(alike).or_default().push(outcome);
    }
    let seen = groups.iter().filter(|(alike, _)| alike.has.is_some()).flat_map(|(_, outcomes)| outcomes);
    let versions: HashMap<Uuid, i32> = change.lock(seen.map(|outcome| outcome.tenant)).await?.into_iter().collect();
    for (alike, outcomes) in groups {
        let_go(plane, &change, alike, &outcomes).await?;
        let Some(has) = alike.has else { continue };
        let is_news = |tenant: &Uuid| versions.get(tenant).is_some_and(|version| *version != has);
        let changed: Vec<Uuid> = outcomes.iter().map(|outcome| outcome.tenant).filter(is_news).collect();
        if changed.is_empty() {
            continue;
        }
        tenants::Entity::update_many()
            .col_expr(tenants::Column::SchemaVersion, Expr::value(has))
            .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
            .col_expr(tenants::Column::UpdatedAt, Expr::value(change.now()))
            .filter(tenants::Column::Id.is_in(changed.iter().copied()))
            .exec(change.db())
            .await?;
        for tenant in changed {
            change.touch(tenant);
        }
    }
    change.commit().await.map(drop)
}

/// Those whose targets are still this process', which they are until the change ends.
async fn ours<'a>(plane: &Plane, change: &Change, outcomes: Vec<&'a Outcome>) -> Result<Vec<&'a Outcome>, DbErr> {
    use rollout_targets::Column;

    let held: HashSet<(Uuid, Uuid, i64)> = rollout_targets::Entity::find()
        .select_only()
        .columns([Column::RolloutId, Column::TenantId, Column::Fence])
        .filter(Column::RolloutId.is_in(outcomes.iter().map(|outcome| outcome.rollout).collect::<BTreeSet<_>>()))
        .filter(Column::TenantId.is_in(outcomes.iter().map(|outcome| outcome.tenant)))
        .filter(Column::LeaseHolder.eq(plane.id))
        .filter(Column::State.eq(TargetState::Running.as_str()))
        .order_by_asc(Column::TenantId)
        .lock(LockType::NoKeyUpdate)
        .into_tuple()
        .all(change.db())
        .await?
        .into_iter()
        .collect();
    let is_ours = |outcome: &&Outcome| held.contains(&(outcome.rollout, outcome.tenant, outcome.fence));
    let (ours, others): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(is_ours);
    for outcome in others {
        tracing::info!(tenant = %outcome.tenant, rollout = %outcome.rollout, "a target was taken over meanwhile");
    }
    Ok(ours)
}

/// Lets go of targets, in the state that they are in from now on.
async fn let_go(plane: &Plane, change: &Change, alike: Alike<'_>, outcomes: &[&Outcome]) -> Result<(), DbErr> {
    use rollout_targets::Column;

    let Alike { rollout, state, text, has } = alike;
    let took = |outcome: &&Outcome| (outcome.tenant, i64::try_from(outcome.took.as_millis()).unwrap_or(i64::MAX));
    let mut write = rollout_targets::Entity::update_many()
        .col_expr(Column::State, Expr::value(state.as_str()))
        .col_expr(Column::Error, Expr::value(text))
        .col_expr(Column::DurationMs, each(Column::TenantId, outcomes.iter().map(took)))
        .col_expr(Column::LeaseHolder, Expr::value(None::<Uuid>))
        .col_expr(Column::LeaseUntil, Expr::value(None::<DateTime<Utc>>));
    if let Some(has) = has {
        write = write.col_expr(Column::VersionAfter, Expr::value(has));
    }
    write = if state == TargetState::Pending {
        let rest = |outcome: &&Outcome| pause(outcome.attempts, rand::random_range(0.0..1.0));
        let due = outcomes.iter().map(|outcome| (outcome.tenant, plane.registry.after(rest(outcome))));
        write.col_expr(Column::RunAfter, each(Column::TenantId, due))
    } else {
        write.col_expr(Column::FinishedAt, Expr::value(change.now()))
    };
    write
        .filter(Column::RolloutId.eq(rollout))
        .filter(Column::TenantId.is_in(outcomes.iter().map(|outcome| outcome.tenant)))
        .exec(change.db())
        .await
        .map(drop)
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
