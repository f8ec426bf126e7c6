//! How a rollout goes on: from wave to wave, to its end, or to a stop when too much failed.
//!
//! Every control plane conducts every rollout of which it finds nothing to take, under its row's lock: whoever comes second finds
//! it done.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect};
use uuid::Uuid;

use super::health::{self, Verdict};
use super::order::{CANARY, STRAGGLERS, Wave, add_wave};
use super::select::Selection;
use super::settings::Settings;
use super::take::lock_running;
use super::{State, TargetState};
use crate::audit::Deed;
use crate::plane::Plane;
use crate::registry::change::Change;
use crate::registry::entities::{rollout_targets, rollout_waves, rollouts};

/// Moves a rollout on, if it can be; answers whether there may be new targets to take.
pub(super) async fn conduct(plane: &Plane, rollout: Uuid) -> Result<bool, DbErr> {
    // Mostly the wave is at work: that is seen without a lock.
    let seen = rollouts::Entity::find_by_id(rollout).one(plane.registry.db()).await?;
    let Some(seen) = seen else { return Ok(false) };
    if is_open(plane.registry.db(), &seen).await? || seen.rest_until.is_some_and(|until| until > plane.registry.now()) {
        return Ok(false);
    }
    let mut change = plane.registry.change().await?;
    let Some(rollout) = lock_running(&change, rollout).await? else { return Ok(false) };
    let settings = Settings::read(rollout.settings.clone())?;
    let rollout = match hold_to_budget(&change, rollout, &settings).await? {
        Ok(within) => within,
        Err(_spent) => {
            change.commit().await?;
            return Ok(false);
        }
    };
    if is_open(change.db(), &rollout).await? {
        return Ok(false);
    }
    let moved = go_on(&mut change, rollout, &settings).await?;
    change.commit().await?;
    if moved {
        // A new version of the fleet has a template of its own.
        plane.restock.notify_one();
    }
    Ok(moved)
}

/// Whether targets of its wave have not ended.
async fn is_open(db: &impl sea_orm::ConnectionTrait, rollout: &rollouts::Model) -> Result<bool, DbErr> {
    for state in TargetState::OPEN {
        let one = rollout_targets::Entity::find()
            .select_only()
            .column(rollout_targets::Column::TenantId)
            .filter(rollout_targets::Column::RolloutId.eq(rollout.id))
            .filter(rollout_targets::Column::State.eq(state.as_str()))
            .filter(rollout_targets::Column::Wave.eq(rollout.wave))
            .limit(1)
            .into_tuple::<Uuid>()
            .one(db)
            .await?;
        if one.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Its wave is over: rests, goes to the next, or ends.
async fn go_on(change: &mut Change, rollout: rollouts::Model, settings: &Settings) -> Result<bool, DbErr> {
    let now = change.now();
    end_wave(change, &rollout).await?;
    let next = rollout_waves::Entity::find_by_id((rollout.id, rollout.wave + 1)).one(change.db()).await?;
    // Once: what rests, or has moved the fleet, was at the gate before. What was retried passes through again.
    let is_ahead = next.as_ref().map_or(!rollout.has_moved_fleet, |next| next.opened_at.is_none());
    if is_ahead && rollout.rest_until.is_none() && !is_healthy(change, &rollout, settings).await? {
        return Ok(false);
    }
    let Some(next) = next else { return wind_up(change, rollout).await };
    match rollout.rest_until {
        // It is passed through again, for what was retried.
        _ if next.opened_at.is_some() => {
            next_wave(change, rollout).await?;
            Ok(true)
        }
        None if settings.confirm => {
            let note = format!("wave {} is done: the next one waits for a resume", rollout.wave);
            let awaited = [
                (rollouts::Column::IsAwaited, Expr::value(true)),
                (rollouts::Column::State, Expr::value(State::Paused.as_str())),
                (rollouts::Column::Note, Expr::value(note)),
            ];
            set(change, rollout.id, awaited).await?;
            Ok(false)
        }
        None if settings.rest_seconds > 0 => {
            let until = now + Duration::from_secs(settings.rest_seconds.into());
            set(change, rollout.id, [(rollouts::Column::RestUntil, Expr::value(until))]).await?;
            Ok(false)
        }
        _ => {
            next_wave(change, rollout).await?;
            Ok(true)
        }
    }
}

/// Whether the canaries fare well enough for the next wave. Where it is too early to say nothing begins yet, and where they do
/// not the rollout is held.
async fn is_healthy(change: &mut Change, rollout: &rollouts::Model, settings: &Settings) -> Result<bool, DbErr> {
    let wave = rollout_waves::Entity::find_by_id((rollout.id, rollout.wave)).one(change.db()).await?;
    if !settings.health.is_watched() || wave.is_none_or(|wave| wave.kind != CANARY) {
        return Ok(true);
    }
    let Some(since) = rollout.watched_from else {
        let watched = [(rollouts::Column::WatchedFrom, Expr::value(change.now()))];
        set(change, rollout.id, watched).await?;
        // It is news for data planes, which wait for news.
        for canary in health::watched_of(change.db(), rollout.id).await? {
            change.touch(canary);
        }
        return Ok(false);
    };
    let (requests, errors) = health::counted(change.db(), rollout.id).await?;
    let why = match health::judge(&settings.health, since, change.now(), requests, errors) {
        Verdict::Wait => return Ok(false),
        Verdict::Pass => {
            tracing::info!(rollout = %rollout.id, requests, errors, "a rollout's canaries fare well");
            set(change, rollout.id, [(rollouts::Column::WatchedFrom, Expr::value(None::<DateTime<Utc>>))]).await?;
            return Ok(true);
        }
        Verdict::Hold(why) => why,
    };
    tracing::warn!(rollout = %rollout.id, "a rollout is held for its canaries: {why}");
    let note = format!("{why}. Look at what they answer; then resume the rollout all the same, or abort it");
    let held = [
        (rollouts::Column::State, Expr::value(State::Paused.as_str())),
        (rollouts::Column::IsAwaited, Expr::value(true)),
        (rollouts::Column::WatchedFrom, Expr::value(None::<DateTime<Utc>>)),
        (rollouts::Column::Note, Expr::value(note)),
    ];
    set(change, rollout.id, held).await?;
    Ok(false)
}

/// The next wave begins; with the first after the canaries, the fleet follows.
pub(super) async fn next_wave(change: &mut Change, rollout: rollouts::Model) -> Result<(), DbErr> {
    let rollout = move_fleet(change, rollout).await?;
    let wave = rollout.wave + 1;
    let begun = [
        (rollouts::Column::Wave, Expr::value(wave)),
        (rollouts::Column::IsAwaited, Expr::value(false)),
        (rollouts::Column::RestUntil, Expr::value(None::<chrono::DateTime<chrono::Utc>>)),
    ];
    set(change, rollout.id, begun).await?;
    open_wave(change, rollout.id, wave).await
}

/// Nothing of it is left but tenants that came to be behind meanwhile.
async fn wind_up(change: &mut Change, rollout: rollouts::Model) -> Result<bool, DbErr> {
    if moves_fleet(&rollout) {
        // Those that come once this has committed have the version. Who is behind is looked for after that.
        move_fleet(change, rollout).await?;
        return Ok(true);
    }
    let selection: Selection = serde_json::from_value(rollout.selection.clone())
        .map_err(|error| DbErr::Custom(format!("a rollout's selection is damaged: {error}")))?;
    let selected = selection.find(change.db(), rollout.target_version, rollout.is_down).await;
    // What it named is gone: nobody is left to be found by it.
    let Ok(selected) = selected else { return finish(change, rollout).await.map(|_| false) };
    let selected = selected.without_targets_of_others();
    let wave = Wave { position: rollout.wave + 1, kind: STRAGGLERS, size: i64::MAX.unsigned_abs(), named: None };
    if add_wave(change, &rollout, &selected, wave).await? == 0 {
        return finish(change, rollout).await.map(|_| false);
    }
    next_wave(change, rollout).await?;
    Ok(true)
}

/// All of its targets have ended.
pub(super) async fn finish(change: &mut Change, rollout: rollouts::Model) -> Result<rollouts::Model, DbErr> {
    let failed = count(change, rollout.id, None, TargetState::Failed).await?;
    let note =
        (failed > 0).then(|| format!("{failed} of its targets failed, within its budget: retry the rollout for them"));
    let ended = [
        (rollouts::Column::State, Expr::value(State::Done.as_str())),
        (rollouts::Column::Note, Expr::value(note)),
        (rollouts::Column::FinishedAt, Expr::value(change.now())),
    ];
    set(change, rollout.id, ended).await?;
    // What an operator's call ends at once is told by the call.
    change.audit_own(|| Deed::on_platform("rollout.done", rollout.id.to_string()));
    read(change, rollout.id).await
}

/// Stops a rollout whose budget is spent. Targets in flight finish.
pub(super) async fn hold_to_budget(
    change: &Change,
    rollout: rollouts::Model,
    settings: &Settings,
) -> Result<Result<rollouts::Model, ()>, DbErr> {
    let failed = count(change, rollout.id, None, TargetState::Failed).await?;
    if failed == 0 {
        return Ok(Ok(rollout));
    }
    let waves = rollout_waves::Entity::find()
        .filter(rollout_waves::Column::RolloutId.eq(rollout.id))
        .order_by_asc(rollout_waves::Column::Position)
        .all(change.db())
        .await?;
    let all: u64 = waves.iter().map(|wave| wave.size.unsigned_abs()).sum();
    let in_wave = count(change, rollout.id, Some(rollout.wave), TargetState::Failed).await?;
    let Some(wave) = waves.iter().find(|wave| wave.position == rollout.wave) else { return Ok(Ok(rollout)) };
    let of_wave = if wave.kind == CANARY { Some(0) } else { settings.wave_budget.allows(wave.size.unsigned_abs()) };
    let is_spent = |failed: u64, allowed: Option<u64>| allowed.is_some_and(|allowed| failed > allowed);
    let why = if is_spent(in_wave, of_wave) {
        if wave.kind == CANARY {
            format!("{in_wave} of {} canaries failed, and none may", wave.size)
        } else {
            let allowed = of_wave.unwrap_or_default();
            format!("{in_wave} of {} targets of wave {} failed, and {allowed} may", wave.size, rollout.wave)
        }
    } else if let Some(allowed) = settings.budget.allows(all).filter(|allowed| failed > *allowed) {
        format!("{failed} of {all} targets failed, and {allowed} may")
    } else {
        return Ok(Ok(rollout));
    };
    tracing::warn!(rollout = %rollout.id, "a rollout's error budget is spent: {why}");
    let note = format!(
        "the error budget is spent: {why}. Put right what its failed targets say, then retry the rollout, or abort it"
    );
    let spent =
        [(rollouts::Column::State, Expr::value(State::Failed.as_str())), (rollouts::Column::Note, Expr::value(note))];
    set(change, rollout.id, spent).await?;
    Ok(Err(()))
}

/// Whether the fleet is yet to follow it.
fn moves_fleet(rollout: &rollouts::Model) -> bool {
    let is_of_all = rollout.selection.as_object().is_some_and(serde_json::Map::is_empty);
    is_of_all && !rollout.has_moved_fleet
}

/// The fleet follows a rollout of all tenants once its canaries have passed: new tenants and templates have its version.
async fn move_fleet(change: &mut Change, mut rollout: rollouts::Model) -> Result<rollouts::Model, DbErr> {
    if !moves_fleet(&rollout) {
        return Ok(rollout);
    }
    change.move_fleet(rollout.target_version);
    set(change, rollout.id, [(rollouts::Column::HasMovedFleet, Expr::value(true))]).await?;
    rollout.has_moved_fleet = true;
    tracing::info!(rollout = %rollout.id, version = rollout.target_version, "the fleet's schema version has moved");
    Ok(rollout)
}

async fn end_wave(change: &Change, rollout: &rollouts::Model) -> Result<(), DbErr> {
    rollout_waves::Entity::update_many()
        .col_expr(rollout_waves::Column::EndedAt, Expr::value(change.now()))
        .filter(rollout_waves::Column::RolloutId.eq(rollout.id))
        .filter(rollout_waves::Column::Position.eq(rollout.wave))
        .filter(rollout_waves::Column::EndedAt.is_null())
        .exec(change.db())
        .await
        .map(drop)
}

async fn open_wave(change: &Change, rollout: Uuid, wave: i32) -> Result<(), DbErr> {
    rollout_waves::Entity::update_many()
        .col_expr(rollout_waves::Column::OpenedAt, Expr::value(change.now()))
        .filter(rollout_waves::Column::RolloutId.eq(rollout))
        .filter(rollout_waves::Column::Position.eq(wave))
        .filter(rollout_waves::Column::OpenedAt.is_null())
        .exec(change.db())
        .await
        .map(drop)
}

/// Targets in a state, of one wave or of all.
async fn count(change: &Change, rollout: Uuid, wave: Option<i32>, state: TargetState) -> Result<u64, DbErr> {
    let mut targets = rollout_targets::Entity::find()
        .filter(rollout_targets::Column::RolloutId.eq(rollout))
        .filter(rollout_targets::Column::State.eq(state.as_str()));
    if let Some(wave) = wave {
        targets = targets.filter(rollout_targets::Column::Wave.eq(wave));
    }
    targets.count(change.db()).await
}

pub(super) async fn set<const N: usize>(
    change: &Change,
    rollout: Uuid,
    columns: [(rollouts::Column, Expr); N],
) -> Result<(), DbErr> {
    let mut update = rollouts::Entity::update_many().filter(rollouts::Column::Id.eq(rollout));
    for (column, value) in columns {
        update = update.col_expr(column, value);
    }
    update.exec(change.db()).await.map(drop)
}

pub(super) async fn read(change: &Change, rollout: Uuid) -> Result<rollouts::Model, DbErr> {
    rollouts::Entity::find_by_id(rollout)
        .one(change.db())
        .await?
        .ok_or_else(|| DbErr::RecordNotFound("the rollout is gone".to_owned()))
}
