//! `/v1/rollouts`: fleet migrations, how far each is, and what it is told.

pub(super) mod plan;
pub(super) mod rehearse;
pub(super) mod start;
pub(super) mod steer;
pub(super) mod targets;
pub(super) mod verify;

use std::collections::HashMap;

use axum::extract::State;
use chrono::{DateTime, Utc};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::{Json, Path, Query};
use service::problem::ProblemBody;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::Api;
use super::auth::Operator;
use super::page::{Page, after, invalid, limit};
use crate::fleet::{self, Selection, Settings, TargetState};
use crate::registry::entities::{rollout_targets, rollout_waves, rollouts};

/// How many targets are in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Counts {
    pending: u64,
    running: u64,
    done: u64,
    failed: u64,
    skipped: u64,
}

impl Counts {
    fn add(&mut self, state: &str, targets: u64) {
        let Some(state) = TargetState::of(state) else { return };
        *match state {
            TargetState::Pending => &mut self.pending,
            TargetState::Running => &mut self.running,
            TargetState::Done => &mut self.done,
            TargetState::Failed => &mut self.failed,
            TargetState::Skipped => &mut self.skipped,
        } += targets;
    }
}

/// One wave.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Wave {
    /// `canary`, `wave`, or `stragglers`: tenants that came to be behind while the others were at work.
    kind: String,
    /// Its targets.
    size: u64,
    counts: Counts,
    opened_at: Option<DateTime<Utc>>,
    ended_at: Option<DateTime<Utc>>,
}

/// A fleet migration.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Rollout {
    id: Uuid,
    /// The schema version that its tenants' databases get.
    version: i32,
    /// Whether it takes migrations back.
    down: bool,
    /// `running`, `paused`, `failed` (its error budget is spent), `aborted` or `done`.
    state: String,
    /// Why it is where it is, and what to do.
    note: Option<String>,
    /// It was ordered before the registry's history got another identity: it goes on only when it is told to, by its
    /// `resume`.
    held: bool,
    /// Why it paused by itself until its `resume`: `confirm`, as its settings say, or `health`, for how its canaries fare.
    awaits: Option<&'static str>,
    /// Which of its waves is at work, from 0.
    wave: i32,
    /// The next wave begins then.
    rest_until: Option<DateTime<Utc>>,
    /// Since then the canaries' requests are counted, and the next wave waits for what `settings.health` says.
    watched_from: Option<DateTime<Utc>>,
    /// Tenants that had the version already when it was ordered.
    already: u64,
    counts: Counts,
    /// Only where one rollout is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    waves: Vec<Wave>,
    select: Selection,
    settings: Settings,
    /// Whether the fleet's schema version, which new tenants get, has followed it. It follows a rollout of all tenants, once
    /// the canaries have passed.
    has_moved_fleet: bool,
    requested_by: String,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

impl Rollout {
    fn of(row: rollouts::Model, counts: Counts, epoch: Uuid) -> Result<Self, Problem> {
        let has_ended = row.finished_at.is_some();
        let settings: Settings = serde_json::from_value(row.settings).map_err(Problem::internal)?;
        let awaits = if settings.confirm { "confirm" } else { "health" };
        Ok(Self {
            id: row.id,
            version: row.target_version,
            down: row.is_down,
            held: !has_ended && row.epoch != epoch,
            awaits: (!has_ended && row.is_awaited).then_some(awaits),
            state: row.state,
            note: row.note,
            wave: row.wave,
            rest_until: row.rest_until,
            watched_from: row.watched_from,
            already: row.already.unsigned_abs(),
            counts,
            waves: Vec::new(),
            select: serde_json::from_value(row.selection).map_err(Problem::internal)?,
            settings,
            has_moved_fleet: row.has_moved_fleet,
            requested_by: row.requested_by,
            created_at: row.created_at,
            finished_at: row.finished_at,
        })
    }

    /// With its waves.
    pub(super) async fn read(db: &impl ConnectionTrait, row: rollouts::Model, epoch: Uuid) -> Result<Self, Problem> {
        let counts = count(db, [row.id]).await?;
        let (mut whole, mut by_wave) = (Counts::default(), HashMap::<i32, Counts>::new());
        for (_, wave, state, targets) in counts {
            whole.add(&state, targets);
            by_wave.entry(wave).or_default().add(&state, targets);
        }
        let waves = rollout_waves::Entity::find()
            .filter(rollout_waves::Column::RolloutId.eq(row.id))
            .order_by_asc(rollout_waves::Column::Position)
            .all(db)
            .await?;
        let waves = waves.into_iter().map(|wave| Wave {
            counts: by_wave.get(&wave.position).copied().unwrap_or_default(),
            kind: wave.kind,
            size: wave.size.unsigned_abs(),
            opened_at: wave.opened_at,
            ended_at: wave.ended_at,
        });
        Ok(Self { waves: waves.collect(), ..Self::of(row, whole, epoch)? })
    }
}

/// Targets by rollout, wave and state.
async fn count(
    db: &impl ConnectionTrait,
    rollouts: impl IntoIterator<Item = Uuid>,
) -> Result<Vec<(Uuid, i32, String, u64)>, DbErr> {
    let rows: Vec<(Uuid, i32, String, i64)> = rollout_targets::Entity::find()
        .select_only()
        .column(rollout_targets::Column::RolloutId)
        .column(rollout_targets::Column::Wave)
        .column(rollout_targets::Column::State)
        .column_as(rollout_targets::Column::TenantId.count(), "targets")
        .filter(rollout_targets::Column::RolloutId.is_in(rollouts))
        .group_by(rollout_targets::Column::RolloutId)
        .group_by(rollout_targets::Column::State)
        .group_by(rollout_targets::Column::Wave)
        .into_tuple()
        .all(db)
        .await?;
    Ok(rows.into_iter().map(|(id, wave, state, targets)| (id, wave, state, targets.unsigned_abs())).collect())
}

/// Which rollouts.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RolloutsQuery {
    /// In this state.
    state: Option<String>,
    /// Items at most, 1 to 200; 50 unless told.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// Lists rollouts, the newest first.
#[utoipa::path(
    get, path = "/v1/rollouts", tag = "fleet", params(RolloutsQuery),
    responses((status = 200, body = Page<Rollout>), (status = 400, body = ProblemBody))
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Operator,
    Query(query): Query<RolloutsQuery>,
) -> Result<Json<Page<Rollout>>, Problem> {
    let db = api.plane.registry.db();
    let limit = limit(query.limit)?;
    let mut select = rollouts::Entity::find();
    if let Some(state) = query.state {
        let known = "must be running, paused, failed, aborted or done";
        let state = fleet::State::of(&state).ok_or_else(|| invalid("state", known))?;
        select = select.filter(rollouts::Column::State.eq(state.as_str()));
    }
    // Ids are UUIDv7: their order is that of creation.
    if let Some(before) = after::<Uuid>(query.cursor.as_deref())? {
        select = select.filter(rollouts::Column::Id.lt(before));
    }
    let rows = select.order_by_desc(rollouts::Column::Id).limit(limit + 1).all(db).await?;
    let mut counts = HashMap::<Uuid, Counts>::new();
    for (id, _, state, targets) in count(db, rows.iter().map(|row| row.id)).await? {
        counts.entry(id).or_default().add(&state, targets);
    }
    let epoch = api.plane.registry.history().await?.epoch;
    let all: Result<Vec<Rollout>, Problem> = rows
        .into_iter()
        .map(|row| {
            let counts = counts.get(&row.id).copied().unwrap_or_default();
            Rollout::of(row, counts, epoch)
        })
        .collect();
    Ok(Json(Page::of(all?, limit, |rollout| rollout.id.to_string(), |rollout| rollout)))
}

/// Shows a rollout with its waves.
#[utoipa::path(
    get, path = "/v1/rollouts/{id}", tag = "fleet", params(("id" = Uuid, Path)),
    responses((status = 200, body = Rollout), (status = 404, body = ProblemBody))
)]
pub(super) async fn show(State(api): State<Api>, _: Operator, Path(id): Path<Uuid>) -> Result<Json<Rollout>, Problem> {
    let registry = &api.plane.registry;
    let row = rollouts::Entity::find_by_id(id).one(registry.db()).await?.ok_or_else(fleet::not_found)?;
    Ok(Json(Rollout::read(registry.db(), row, registry.history().await?.epoch).await?))
}
