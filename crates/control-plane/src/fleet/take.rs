//! Which targets are next, and who works on them: leases with a fencing number, as operations have them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use sea_orm::sea_query::{Expr, LockType, Query};
use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::settings::Settings;
use super::{State, TargetState, conduct};
use crate::plane::Plane;
use crate::registry::change::Change;
use crate::registry::entities::{rollout_targets, rollouts, servers};
use crate::registry::{Registry, present_epoch};
use crate::shares::reserve::rollout_room;

/// Targets that were taken, of one rollout.
pub(super) struct Taken {
    pub(super) rollout: rollouts::Model,
    pub(super) settings: Settings,
    /// Each as it is now, and who held it before and did not let go of it.
    pub(super) targets: Vec<(rollout_targets::Model, Option<Uuid>)>,
}

/// Rollouts that go on now: none of another epoch does, until it is told to.
pub(super) async fn running(plane: &Plane) -> Result<Vec<Uuid>, DbErr> {
    rollouts::Entity::find()
        .select_only()
        .column(rollouts::Column::Id)
        .filter(goes_on())
        // What a newer program brought is left to those who contain it.
        .filter(rollouts::Column::TargetVersion.lte(contained(plane)))
        .order_by_asc(rollouts::Column::Id)
        .into_tuple()
        .all(plane.registry.db())
        .await
}

/// Running, and of the epoch that the registry's history is in.
fn goes_on() -> Condition {
    Condition::all()
        .add(rollouts::Column::State.eq(State::Running.as_str()))
        .add(rollouts::Column::Epoch.in_subquery(present_epoch()))
}

/// How many migrations this program contains.
fn contained(plane: &Plane) -> i32 {
    i32::try_from(plane.schema.migrations().len()).unwrap_or(i32::MAX)
}

/// The rollout, if it goes on now; nobody else decides anything of it until the change ends.
pub(super) async fn lock_running(change: &Change, rollout: Uuid) -> Result<Option<rollouts::Model>, DbErr> {
    rollouts::Entity::find_by_id(rollout).filter(goes_on()).lock(LockType::Update).one(change.db()).await
}

/// Nobody is at work on it any more: its holder's time is over.
fn has_lapsed(registry: &Registry) -> Condition {
    Condition::all()
        .add(rollout_targets::Column::State.eq(TargetState::Running.as_str()))
        .add(rollout_targets::Column::LeaseUntil.into_expr().lt(registry.present()))
}

/// Nobody has begun it, or somebody was in the way, and its turn has come.
fn is_due(registry: &Registry) -> Condition {
    Condition::all()
        .add(rollout_targets::Column::State.eq(TargetState::Pending.as_str()))
        .add(rollout_targets::Column::RunAfter.into_expr().lte(registry.present()))
}

/// Due and nobody's.
fn is_free(registry: &Registry) -> Condition {
    Condition::any().add(is_due(registry)).add(has_lapsed(registry))
}

/// Takes targets of the rollout's wave that are due, so many at most, within what may be at work in all and on each server.
pub(super) async fn take(
    plane: &Plane,
    rollout: Uuid,
    at_most: usize,
    lease: Duration,
) -> Result<Option<Taken>, DbErr> {
    let registry = &plane.registry;
    let change = registry.change().await?;
    let Some(rollout) = lock_running(&change, rollout).await? else { return Ok(None) };
    let settings = Settings::read(rollout.settings.clone())?;
    // What failed since the last look may have spent the budget.
    let rollout = match conduct::hold_to_budget(&change, rollout, &settings).await? {
        Ok(within) => within,
        Err(_spent) => {
            change.commit().await?;
            return Ok(None);
        }
    };
    let mut at_work = at_work(&change, registry, rollout.id).await?;
    let in_all: u64 = at_work.values().sum();
    let free = Ord::min(u64::from(settings.concurrency).saturating_sub(in_all), at_most as u64);
    let mut targets = Vec::new();
    let room = room_on_servers(plane, &change).await?;
    let is_full = |server: Uuid, at_work: u64| {
        let room = room.get(&server).copied().unwrap_or(u32::MAX);
        at_work >= u64::from(Ord::min(settings.per_server, room))
    };
    // One after the other: each is read in the order of an index. What somebody left goes first.
    let mut kinds = [has_lapsed(registry), is_due(registry)].into_iter();
    let mut kind = kinds.next();
    // Each round fills some server, or is the last of its kind.
    while (targets.len() as u64) < free {
        let Some(is_next) = kind.clone() else { break };
        let full: Vec<Uuid> = at_work
            .iter()
            .filter(|(server, at_work)| is_full(**server, **at_work))
            .map(|(server, _)| *server)
            .collect();
        let seen: HashSet<Uuid> = targets.iter().map(|it: &rollout_targets::Model| it.tenant_id).collect();
        let limit = free - targets.len() as u64;
        let next = rollout_targets::Entity::find()
            .filter(rollout_targets::Column::RolloutId.eq(rollout.id))
            .filter(rollout_targets::Column::Wave.eq(rollout.wave))
            .filter(is_next)
            // To take a migration back, it has to be there.
            .filter(rollout_targets::Column::VersionBefore.lte(contained(plane)))
            .filter(rollout_targets::Column::ServerId.is_not_in(full))
            .filter(rollout_targets::Column::TenantId.is_not_in(seen))
            .order_by_asc(rollout_targets::Column::TenantId)
            .limit(limit)
            .all(change.db())
            .await?;
        let is_last = (next.len() as u64) < limit;
        for target in next {
            let server = target.server_id.unwrap_or_default();
            let on_server = at_work.entry(server).or_default();
            if (targets.len() as u64) < free && !is_full(server, *on_server) {
                *on_server += 1;
                targets.push(target);
            }
        }
        if is_last {
            kind = kinds.next();
        }
    }
    let targets = lease_all(plane, &change, targets, &settings, lease).await?;
    change.commit().await?;
    Ok(Some(Taken { rollout, settings, targets }))
}

/// How many may be at work on each server.
async fn room_on_servers(plane: &Plane, change: &Change) -> Result<HashMap<Uuid, u32>, DbErr> {
    let servers = servers::Entity::find().all(change.db()).await?;
    Ok(servers.iter().map(|server| (server.id, rollout_room(plane, server))).collect())
}

/// How many are at work on each server, by whomever.
async fn at_work(change: &Change, registry: &Registry, rollout: Uuid) -> Result<BTreeMap<Uuid, u64>, DbErr> {
    let rows: Vec<(Option<Uuid>, i64)> = rollout_targets::Entity::find()
        .select_only()
        .column(rollout_targets::Column::ServerId)
        .column_as(rollout_targets::Column::TenantId.count(), "targets")
        .filter(rollout_targets::Column::RolloutId.eq(rollout))
        .filter(rollout_targets::Column::State.eq(TargetState::Running.as_str()))
        .filter(has_lapsed(registry).not())
        .group_by(rollout_targets::Column::ServerId)
        .into_tuple()
        .all(change.db())
        .await?;
    Ok(rows.into_iter().map(|(server, count)| (server.unwrap_or_default(), count.unsigned_abs())).collect())
}

/// Gives this process the lease on each that nobody changed since it was read. One whose holders died again and again is given
/// up: it may be what they died of.
async fn lease_all(
    plane: &Plane,
    change: &Change,
    seen: Vec<rollout_targets::Model>,
    settings: &Settings,
    lease: Duration,
) -> Result<Vec<(rollout_targets::Model, Option<Uuid>)>, DbErr> {
    use rollout_targets::Column;

    let registry = &plane.registry;
    let most = i32::try_from(settings.attempts).unwrap_or(i32::MAX);
    let (spent, seen): (Vec<_>, Vec<_>) = seen.into_iter().partition(|target| target.attempts >= most);
    for target in spent {
        let error = format!(
            "whoever worked on it did not come to an end, {} times: the control planes' logs may say why; POST \
             /v1/rollouts/{}/retry tries it again",
            target.attempts, target.rollout_id
        );
        rollout_targets::Entity::update_many()
            .col_expr(Column::State, Expr::value(TargetState::Failed.as_str()))
            .col_expr(Column::Error, Expr::value(error))
            .col_expr(Column::LeaseHolder, Expr::value(None::<Uuid>))
            .col_expr(Column::FinishedAt, Expr::value(change.now()))
            .filter(Column::RolloutId.eq(target.rollout_id))
            .filter(Column::TenantId.eq(target.tenant_id))
            .filter(Column::Fence.eq(target.fence))
            .filter(is_free(registry))
            .exec(change.db())
            .await?;
    }
    let Some(first) = seen.first() else { return Ok(Vec::new()) };
    let taken = rollout_targets::Entity::update_many()
        .col_expr(Column::State, Expr::value(TargetState::Running.as_str()))
        .col_expr(Column::Attempts, Expr::col(Column::Attempts).add(1))
        .col_expr(Column::Fence, Expr::col(Column::Fence).add(1))
        .col_expr(Column::LeaseHolder, Expr::value(plane.id))
        .col_expr(Column::LeaseUntil, registry.after(lease))
        .filter(Column::RolloutId.eq(first.rollout_id))
        .filter(Column::TenantId.is_in(seen.iter().map(|target| target.tenant_id)))
        // Who had one of them may have ended it since.
        .filter(is_free(registry))
        .exec_with_returning(change.db())
        .await?;
    let before = |tenant: Uuid| {
        let holder = seen.iter().find(|target| target.tenant_id == tenant).and_then(|target| target.lease_holder);
        holder.filter(|holder| *holder != plane.id)
    };
    Ok(taken.into_iter().map(|target| (before(target.tenant_id), target)).map(|(it, target)| (target, it)).collect())
}

/// Lets go of targets whose holder died when their rollout went on no more, and which nobody takes: those of one that was given
/// up have ended, so that their tenants are not in an open rollout for ever; those of one that failed wait for its retry.
pub(super) async fn sweep(plane: &Plane) -> Result<(), DbErr> {
    let of = |state: State| {
        let rollouts = Query::select()
            .column(rollouts::Column::Id)
            .from(rollouts::Entity)
            .and_where(rollouts::Column::State.eq(state.as_str()))
            .to_owned();
        rollout_targets::Column::RolloutId.in_subquery(rollouts)
    };
    rollout_targets::Entity::update_many()
        .col_expr(rollout_targets::Column::State, Expr::value(TargetState::Pending.as_str()))
        .col_expr(rollout_targets::Column::LeaseHolder, Expr::value(None::<Uuid>))
        .filter(of(State::Failed))
        .filter(has_lapsed(&plane.registry))
        .exec(plane.registry.db())
        .await?;
    let error = "the rollout was given up, and whoever worked on it did not come to an end: `freehold tenant doctor` says \
                 which version the database has";
    rollout_targets::Entity::update_many()
        .col_expr(rollout_targets::Column::State, Expr::value(TargetState::Skipped.as_str()))
        .col_expr(rollout_targets::Column::Error, Expr::value(error))
        .col_expr(rollout_targets::Column::LeaseHolder, Expr::value(None::<Uuid>))
        .col_expr(rollout_targets::Column::FinishedAt, Expr::value(plane.registry.now()))
        .filter(of(State::Aborted))
        .filter(has_lapsed(&plane.registry))
        .exec(plane.registry.db())
        .await
        .map(drop)
}

/// Renews this process' leases on the targets of these tenants.
pub(super) async fn renew(plane: &Plane, tenants: Vec<Uuid>, lease: Duration) -> Result<(), DbErr> {
    if tenants.is_empty() {
        return Ok(());
    }
    rollout_targets::Entity::update_many()
        .col_expr(rollout_targets::Column::LeaseUntil, plane.registry.after(lease))
        .filter(rollout_targets::Column::LeaseHolder.eq(plane.id))
        .filter(rollout_targets::Column::State.eq(TargetState::Running.as_str()))
        .filter(rollout_targets::Column::TenantId.is_in(tenants))
        .exec(plane.registry.db())
        .await
        .map(drop)
}
