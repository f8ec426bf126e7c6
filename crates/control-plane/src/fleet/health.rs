//! The health gate: between the canaries and the wave after them the rollout waits, and looks how the canaries' requests fare,
//! as data planes report it. It is held when too many fail.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use tenancy::TenantId;
use tenancy::feed::{CanaryCount, MAX_CANARIES};
use uuid::Uuid;

use super::settings::Health;
use super::{State, TargetState};
use crate::registry::Registry;
use crate::registry::entities::{rollout_targets, rollouts};

/// How much longer than its time a rollout waits for the requests that it wants to see.
const LONGEST: Duration = Duration::from_hours(1);

/// What is to be done about the canaries' health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is too early to say.
    Wait,
    /// The next wave may begin.
    Pass,
    /// Somebody has to look. Why, in words.
    Hold(String),
}

/// Judges canaries that were watched since then, and had so many requests, of which so many were answered with a 5xx.
#[allow(clippy::cast_precision_loss, reason = "a share of a count")]
pub(super) fn judge(health: &Health, since: DateTime<Utc>, now: DateTime<Utc>, requests: u64, errors: u64) -> Verdict {
    let took = (now - since).to_std().unwrap_or_default();
    let wanted = u64::from(health.requests);
    if took < Duration::from_secs(health.seconds.into()) {
        return Verdict::Wait;
    }
    let share = if requests == 0 { 0.0 } else { errors as f64 * 100.0 / requests as f64 };
    if requests >= wanted {
        if share <= health.max_error_percent {
            return Verdict::Pass;
        }
        return Verdict::Hold(format!(
            "{errors} of {requests} requests of the canaries were answered with a 5xx ({share:.1}%), and {}% may be",
            health.max_error_percent
        ));
    }
    if took < Duration::from_secs(health.seconds.into()) + LONGEST {
        return Verdict::Wait;
    }
    Verdict::Hold(format!("the canaries had {requests} requests, and {wanted} were to be seen"))
}

/// The canaries that data planes are to count for: those of running rollouts that wait at the gate, so many at most.
pub(crate) async fn canaries(db: &impl ConnectionTrait) -> Result<Vec<TenantId>, DbErr> {
    let watched = watched(db).await?;
    if watched.is_empty() {
        return Ok(Vec::new());
    }
    Ok(done(db, watched).await?.into_iter().map(Into::into).collect())
}

/// The canaries of a rollout that are counted.
pub(super) async fn watched_of(db: &impl ConnectionTrait, rollout: Uuid) -> Result<Vec<Uuid>, DbErr> {
    done(db, vec![rollout]).await
}

async fn done(db: &impl ConnectionTrait, rollouts: Vec<Uuid>) -> Result<Vec<Uuid>, DbErr> {
    rollout_targets::Entity::find()
        .select_only()
        .column(rollout_targets::Column::TenantId)
        .filter(rollout_targets::Column::RolloutId.is_in(rollouts))
        .filter(rollout_targets::Column::Wave.eq(0))
        .filter(rollout_targets::Column::State.eq(TargetState::Done.as_str()))
        .order_by_asc(rollout_targets::Column::TenantId)
        .limit(MAX_CANARIES as u64)
        .into_tuple()
        .all(db)
        .await
}

/// Adds what a data plane counted, all or none of it. Of who is no canary any more nothing is kept.
pub(crate) async fn count(registry: &Registry, counts: &[CanaryCount]) -> Result<(), DbErr> {
    use rollout_targets::Column;

    if counts.is_empty() {
        return Ok(());
    }
    let watched = watched(registry.db()).await?;
    if watched.is_empty() {
        return Ok(());
    }
    let mut counts: Vec<&CanaryCount> = counts.iter().collect();
    // In the order in which every change locks them.
    counts.sort_by_key(|count| count.tenant.as_uuid());
    let db = registry.begin().await?;
    for count in counts {
        let more = |counted: u64| i64::try_from(counted).unwrap_or(i64::MAX);
        rollout_targets::Entity::update_many()
            .col_expr(Column::Requests, Expr::col(Column::Requests).add(more(count.requests)))
            .col_expr(Column::Errors, Expr::col(Column::Errors).add(more(Ord::min(count.errors, count.requests))))
            .filter(Column::RolloutId.is_in(watched.iter().copied()))
            .filter(Column::TenantId.eq(count.tenant.as_uuid()))
            .filter(Column::Wave.eq(0))
            .exec(&db)
            .await?;
    }
    db.commit().await
}

/// All requests of the rollout's canaries, and those that were answered with a 5xx.
pub(super) async fn counted(db: &impl ConnectionTrait, rollout: Uuid) -> Result<(u64, u64), DbErr> {
    let rows: Vec<(i64, i64)> = rollout_targets::Entity::find()
        .select_only()
        .column(rollout_targets::Column::Requests)
        .column(rollout_targets::Column::Errors)
        .filter(rollout_targets::Column::RolloutId.eq(rollout))
        .filter(rollout_targets::Column::Requests.gt(0))
        .into_tuple()
        .all(db)
        .await?;
    Ok(rows.into_iter().fold((0, 0), |sum, row| (sum.0 + row.0.unsigned_abs(), sum.1 + row.1.unsigned_abs())))
}

/// Rollouts that wait at the gate.
async fn watched(db: &impl ConnectionTrait) -> Result<Vec<Uuid>, DbErr> {
    rollouts::Entity::find()
        .select_only()
        .column(rollouts::Column::Id)
        .filter(rollouts::Column::State.eq(State::Running.as_str()))
        .filter(rollouts::Column::WatchedFrom.is_not_null())
        .into_tuple()
        .all(db)
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn the_gate_waits_for_time_and_requests_and_holds_when_too_many_fail() {
        let health = Health { seconds: 60, requests: 20, max_error_percent: 5.0 };
        let judge = |seconds, requests, errors| judge(&health, at(0), at(seconds), requests, errors);
        assert_eq!(judge(59, 1_000, 0), Verdict::Wait, "its time is not over");
        assert_eq!(judge(60, 19, 0), Verdict::Wait, "it was to see more requests");
        assert_eq!(judge(60, 20, 1), Verdict::Pass, "as many as may");
        let held = "2 of 20 requests of the canaries were answered with a 5xx (10.0%), and 5% may be";
        assert_eq!(judge(60, 20, 2), Verdict::Hold(held.to_owned()));
        assert_eq!(judge(60 + 3_599, 19, 0), Verdict::Wait);
        let unseen = "the canaries had 19 requests, and 20 were to be seen";
        assert_eq!(judge(60 + 3_600, 19, 0), Verdict::Hold(unseen.to_owned()), "nobody waits for ever");
    }

    #[test]
    fn canaries_without_requests_pass_where_none_were_to_be_seen() {
        let health = Health { seconds: 60, requests: 0, max_error_percent: 0.0 };
        assert_eq!(judge(&health, at(0), at(60), 0, 0), Verdict::Pass);
        assert!(matches!(judge(&health, at(0), at(60), 1_000, 1), Verdict::Hold(_)));
    }
}
