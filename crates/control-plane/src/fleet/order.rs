//! Plan and order: what a rollout would do, and its rows when it is begun.

use std::collections::BTreeMap;

use http::StatusCode;
use sea_orm::sea_query::{Expr, Query};
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, SqlErr,
};
use service::Problem;
use uuid::Uuid;

use super::select::{Selected, Selection, named_tenants};
use super::settings::{Canary, Settings};
use super::{State, TargetState, stored, waves};
use crate::engine::is_deadlock;
use crate::plane::Plane;
use crate::registry::change::Change;
use crate::registry::entities::{history, rollout_targets, rollout_waves, rollouts, tenants};

/// The first wave.
pub(super) const CANARY: &str = "canary";
/// One of those after it.
pub(super) const WAVE: &str = "wave";
/// Those that were found behind when all others had ended.
pub(super) const STRAGGLERS: &str = "stragglers";

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) version: u32,
    pub(crate) is_down: bool,
    pub(crate) selection: Selection,
    pub(crate) settings: Settings,
}

/// What a rollout would do.
pub(crate) struct Planned {
    /// Tenants that are at the version, or past it.
    pub(crate) already: u64,
    /// Those whose databases are to be changed, by the version that they have.
    pub(crate) found: BTreeMap<u32, u64>,
    /// Kind and size of each wave.
    pub(crate) waves: Vec<(&'static str, u64)>,
    canaries: Vec<Uuid>,
}

impl Planned {
    fn targets(&self) -> u64 {
        self.found.values().sum()
    }
}

/// What it would do; refuses what cannot be done.
pub(crate) async fn plan(plane: &Plane, db: &impl ConnectionTrait, order: &Order) -> Result<Planned, Problem> {
    prepare(plane, db, order).await.map(|(planned, _)| planned)
}

async fn prepare(plane: &Plane, db: &impl ConnectionTrait, order: &Order) -> Result<(Planned, Selected), Problem> {
    order.settings.check()?;
    check_version(plane, db, order).await?;
    let version = stored(order.version);
    let selected = order.selection.find(db, version, order.is_down).await?;
    let all = selected.all().count(db).await?;
    let found: Vec<(i32, i64)> = selected
        .to_change()
        .select_only()
        .column(tenants::Column::SchemaVersion)
        .column_as(tenants::Column::Id.count(), "tenants")
        .group_by(tenants::Column::SchemaVersion)
        .into_tuple()
        .all(db)
        .await?;
    let found: BTreeMap<u32, u64> =
        found.into_iter().map(|(version, tenants)| (version.unsigned_abs(), tenants.unsigned_abs())).collect();
    let targets = found.values().sum();
    let canaries = match &order.settings.canary {
        Canary::Number(_) => Vec::new(),
        Canary::Tenants(named) => {
            let ids = named_tenants(db, "settings.canary", named).await?;
            let selected_too = selected.all().filter(tenants::Column::Id.is_in(ids.iter().copied())).count(db).await?;
            if selected_too < ids.len() as u64 {
                let detail = "names a tenant that is not selected, or has no database: leave it out, or select it too";
                return Err(Problem::invalid_field("settings.canary", detail));
            }
            let are_targets = selected.to_change().filter(tenants::Column::Id.is_in(ids.iter().copied()));
            are_targets.select_only().column(tenants::Column::Id).into_tuple().all(db).await?
        }
    };
    let first = match &order.settings.canary {
        Canary::Number(number) => u64::from(*number),
        Canary::Tenants(_) => canaries.len() as u64,
    };
    let sizes = waves::sizes(targets, first, &order.settings.waves);
    let kind = |position: usize| if position == 0 && first > 0 { CANARY } else { WAVE };
    let waves = sizes.into_iter().enumerate().map(|(position, size)| (kind(position), size)).collect();
    Ok((Planned { already: all - targets, found, waves, canaries }, selected))
}

/// Whether databases can be brought to the version by what this program contains, and be served then.
async fn check_version(plane: &Plane, db: &impl ConnectionTrait, order: &Order) -> Result<(), Problem> {
    let contained = u32::try_from(plane.schema.migrations().len()).unwrap_or(u32::MAX);
    if order.version > contained {
        let detail = format!(
            "there is no version {}: this control plane contains {contained} migrations; start one that contains more, \
             or name a version up to that",
            order.version
        );
        return Err(Problem::invalid_field("version", detail));
    }
    let needed = plane.product.schema_version;
    if order.version < needed {
        let detail = format!("the product needs version {needed} at least: below it no tenant is served");
        return Err(Problem::invalid_field("version", detail));
    }
    let newest: Option<Option<i32>> = tenants::Entity::find()
        .select_only()
        .column_as(tenants::Column::SchemaVersion.max(), "newest")
        .filter(tenants::Column::ServerId.is_not_null())
        .into_tuple()
        .one(db)
        .await?;
    let newest = newest.flatten().unwrap_or(0).unsigned_abs();
    if newest > contained {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "migrations-missing",
            format!(
                "Databases of the fleet are at version {newest}, and this control plane contains {contained} migrations. \
                 Start the newer program everywhere, then order the rollout of it."
            ),
        ));
    }
    let fleet =
        history::Entity::find_by_id(1).one(db).await?.map_or(0, |history| history.schema_version.unsigned_abs());
    if order.version < fleet && !order.is_down {
        let detail = format!("the fleet is at version {fleet}: to go back to {} say so by `down`", order.version);
        return Err(Problem::invalid_field("version", detail));
    }
    Ok(())
}

/// Begins a rollout: its rows, and those of its targets. It is done at once when there is nothing to change.
pub(crate) async fn order(
    plane: &Plane,
    change: &mut Change,
    order: &Order,
    requested_by: &str,
) -> Result<rollouts::Model, Problem> {
    let db = change.db();
    let (planned, selected) = prepare(plane, db, order).await?;
    if let Some(other) = in_the_way(db, &selected).await? {
        return Err(at_work(Some(other)));
    }
    let (epoch, now) = (change.epoch().await?, change.now());
    let internal = |error: serde_json::Error| Problem::internal(error);
    let row = rollouts::ActiveModel {
        id: Set(Uuid::now_v7()),
        target_version: Set(stored(order.version)),
        is_down: Set(order.is_down),
        selection: Set(serde_json::to_value(&order.selection).map_err(internal)?),
        settings: Set(serde_json::to_value(&order.settings).map_err(internal)?),
        state: Set(State::Running.as_str().to_owned()),
        note: Set(None),
        wave: Set(0),
        rest_until: Set(None),
        is_awaited: Set(false),
        watched_from: Set(None),
        has_moved_fleet: Set(false),
        already: Set(i64::try_from(planned.already).unwrap_or(i64::MAX)),
        requested_by: Set(requested_by.to_owned()),
        epoch: Set(epoch),
        created_at: Set(now),
        finished_at: Set(None),
    };
    let row = row.insert(db).await?;
    for (position, (kind, size)) in planned.waves.iter().enumerate() {
        let position = i32::try_from(position).unwrap_or(i32::MAX);
        let named = (*kind == CANARY && !planned.canaries.is_empty()).then_some(planned.canaries.as_slice());
        let added = add_wave(change, &row, &selected, Wave { position, kind, size: *size, named }).await;
        match added {
            // Another was ordered at the same moment; with canaries of its own, the two may have waited for each other.
            Err(error)
                if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) || is_deadlock(&error) =>
            {
                return Err(at_work(None));
            }
            added => drop(added?),
        }
    }
    let fleet = history::Entity::find_by_id(1).one(db).await?.map_or(0, |history| history.schema_version);
    // Where the fleet is yet to follow, tenants may come to be behind until it has: the conductor looks for them.
    if planned.targets() > 0 || order.selection == Selection::default() && fleet != row.target_version {
        return Ok(row);
    }
    super::conduct::finish(change, row).await.map_err(Into::into)
}

/// A wave that is to be added.
pub(super) struct Wave<'a> {
    pub(super) position: i32,
    pub(super) kind: &'static str,
    pub(super) size: u64,
    /// Whose it is; the oldest tenants' that are in none where nobody is named.
    pub(super) named: Option<&'a [Uuid]>,
}

/// Writes a wave and its targets, without reading them; answers how many there are.
pub(super) async fn add_wave(
    change: &Change,
    rollout: &rollouts::Model,
    selected: &Selected,
    wave: Wave<'_>,
) -> Result<u64, DbErr> {
    use rollout_targets::Column;

    let db = change.db();
    let mut source = selected.yet_to_target(rollout.id);
    if let Some(named) = wave.named {
        source = source.filter(tenants::Column::Id.is_in(named.iter().copied()));
    }
    let now = change.now();
    let source = source
        .select_only()
        .expr(Expr::value(rollout.id))
        .column(tenants::Column::Id)
        .column(tenants::Column::ServerId)
        .expr(Expr::value(wave.position))
        .expr(Expr::value(TargetState::Pending.as_str()))
        .expr(Expr::value(0_i32))
        .column(tenants::Column::SchemaVersion)
        .expr(Expr::value(0_i64))
        .expr(change.present())
        .order_by_asc(tenants::Column::Id)
        .limit(wave.size)
        .into_query();
    let mut insert = Query::insert();
    insert.into_table(rollout_targets::Entity).columns([
        Column::RolloutId,
        Column::TenantId,
        Column::ServerId,
        Column::Wave,
        Column::State,
        Column::Attempts,
        Column::VersionBefore,
        Column::Fence,
        Column::RunAfter,
    ]);
    insert.select_from(source).map_err(|error| DbErr::Custom(error.to_string()))?;
    let added = db.execute(&insert).await?.rows_affected();
    if added == 0 {
        return Ok(0);
    }
    let row = rollout_waves::ActiveModel {
        rollout_id: Set(rollout.id),
        position: Set(wave.position),
        kind: Set(wave.kind.to_owned()),
        size: Set(i64::try_from(added).unwrap_or(i64::MAX)),
        opened_at: Set((wave.position == rollout.wave).then_some(now)),
        ended_at: Set(None),
    };
    rollout_waves::Entity::insert(row).exec_without_returning(db).await?;
    Ok(added)
}

/// The rollout that one of the tenants is an open target of.
async fn in_the_way(db: &impl ConnectionTrait, selected: &Selected) -> Result<Option<Uuid>, DbErr> {
    let ids = selected.to_change().select_only().column(tenants::Column::Id).into_query();
    rollout_targets::Entity::find()
        .select_only()
        .column(rollout_targets::Column::RolloutId)
        .filter(rollout_targets::Column::State.is_in(TargetState::OPEN.map(TargetState::as_str)))
        .filter(rollout_targets::Column::TenantId.in_subquery(ids))
        .into_tuple()
        .one(db)
        .await
}

/// Another rollout goes first.
pub(super) fn at_work(other: Option<Uuid>) -> Problem {
    let which = other.map_or_else(|| "Another rollout".to_owned(), |id| format!("The rollout {id}"));
    // Without a name it is the newest that is watched and given up.
    let id = other.map_or_else(String::new, |id| format!(" {id}"));
    let detail = format!(
        "{which} is at work on tenants of this one. Wait for its end (`freehold fleet watch{id}`), or give it up \
         (`freehold fleet abort{id}`), then order this one again."
    );
    Problem::new(StatusCode::CONFLICT, "rollout-at-work", detail)
}
