//! One target: a tenant's database is brought to the version, and what came of it.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use sea_orm::sea_query::Query;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};
use tenancy::Status;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::settings::Settings;
use super::stored;
use super::take::Taken;
use super::tell::{Untold, tell};
use crate::engine::{DatabaseName, EngineError, Entered, Patience, Way};
use crate::plane::Plane;
use crate::registry::entities::{databases, rollout_targets, servers, tenants};

/// How often a migration that does not get its locks is tried before the target makes room for others.
const LOCK_ATTEMPTS: u32 = 3;

/// How long a database is looked at whose migration went wrong.
const LOOK: Duration = Duration::from_secs(10);

/// Why a database was not brought to the version.
enum Stopped {
    /// Data planes were not told, or have not let go.
    Untold(Untold),
    Engine(EngineError),
}

impl From<Untold> for Stopped {
    fn from(untold: Untold) -> Self {
        Self::Untold(untold)
    }
}

impl From<EngineError> for Stopped {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// What is done with a target.
pub(super) struct Job {
    pub(super) target: rollout_targets::Model,
    /// Who held it before, and may still be at work on the server.
    before: Option<Uuid>,
    version: u32,
    is_down: bool,
    settings: Arc<Settings>,
    /// None for a tenant whose database is not there any more.
    place: Option<(DatabaseName, servers::Model)>,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) rollout: Uuid,
    pub(super) tenant: Uuid,
    pub(super) fence: i64,
    pub(super) attempts: i32,
    /// It was tried as often as its rollout says.
    pub(super) is_last: bool,
    /// The version that the database was seen to have at the end.
    pub(super) has: Option<u32>,
    pub(super) took: Duration,
    pub(super) end: End,
}

/// How an attempt ended. Texts are public.
#[derive(Debug)]
pub(super) enum End {
    Done,
    Failed(String),
    /// Somebody was in the way: it is tried again, as often as the rollout says.
    Again(String),
    Skipped(String),
}

/// Reads what the work on targets needs, for all of them together.
pub(super) async fn jobs(plane: &Plane, taken: Taken) -> Result<Vec<Job>, DbErr> {
    let db = plane.registry.db();
    let ids = taken.targets.iter().map(|(target, _)| target.tenant_id);
    // Of these alone: SQLite would read all tenants that there are.
    let there = Query::select()
        .column(tenants::Column::Id)
        .from(tenants::Entity)
        .and_where(tenants::Column::Id.is_in(ids.clone()))
        .and_where(tenants::Column::Status.ne(Status::Deleted.as_str()))
        .to_owned();
    let databases: HashMap<Uuid, (String, Uuid)> = databases::Entity::find()
        .select_only()
        .columns([databases::Column::TenantId, databases::Column::Name, databases::Column::ServerId])
        .filter(databases::Column::TenantId.is_in(ids))
        .filter(databases::Column::TenantId.in_subquery(there))
        .into_tuple::<(Uuid, String, Uuid)>()
        .all(db)
        .await?
        .into_iter()
        .map(|(tenant, name, server)| (tenant, (name, server)))
        .collect();
    let on: BTreeSet<Uuid> = databases.values().map(|(_, server)| *server).collect();
    let servers: HashMap<Uuid, servers::Model> = servers::Entity::find()
        .filter(servers::Column::Id.is_in(on))
        .all(db)
        .await?
        .into_iter()
        .map(|row| (row.id, row))
        .collect();
    let settings = Arc::new(taken.settings);
    let job = |(target, before): (rollout_targets::Model, Option<Uuid>)| {
        let database = databases.get(&target.tenant_id);
        let on = database.and_then(|(name, server)| Some((name.parse().ok()?, servers.get(server)?.clone())));
        let (version, is_down) = (taken.rollout.target_version.unsigned_abs(), taken.rollout.is_down);
        Job { target, before, version, is_down, settings: Arc::clone(&settings), place: on }
    };
    Ok(taken.targets.into_iter().map(job).collect())
}

impl Job {
    /// Works on it once. A panic is the failure of this target alone.
    pub(super) async fn attempt(self, plane: &Plane) -> Outcome {
        let begun = Instant::now();
        let work = timeout(self.settings.target_timeout(), AssertUnwindSafe(self.work(plane)).catch_unwind());
        let (mut has, end) = match work.await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => (None, End::Failed("the work panicked; the control plane's log has its words".to_owned())),
            Err(_) => (None, End::Again("it did not come to an end in time".to_owned())),
        };
        if has.is_none() && matches!(end, End::Failed(_) | End::Again(_)) {
            // Some of its migrations may have taken effect all the same.
            has = timeout(LOOK, self.look(plane)).await.ok().flatten();
        }
        let is_last = self.target.attempts.unsigned_abs() >= self.settings.attempts;
        let target = self.target;
        Outcome {
            rollout: target.rollout_id,
            tenant: target.tenant_id,
            fence: target.fence,
            attempts: target.attempts,
            is_last,
            has,
            took: begun.elapsed(),
            end,
        }
    }

    async fn work(&self, plane: &Plane) -> (Option<u32>, End) {
        let Some((name, server)) = &self.place else {
            return (None, End::Skipped("the tenant's database is gone: it was deleted meanwhile".to_owned()));
        };
        match self.migrate(plane, name, server).await {
            Ok(has) => (Some(has), End::Done),
            Err(Stopped::Untold(untold)) => (None, End::Again(untold.to_string())),
            Err(Stopped::Engine(error)) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(tenant = %self.target.tenant_id, rollout = %self.target.rollout_id, source,
                    "a target was not migrated: {error}");
                let text = error.to_string();
                (None, if error.is_unavailable() { End::Again(text) } else { End::Failed(text) })
            }
        }
    }

    /// Answers the version that the database has in the end.
    async fn migrate(&self, plane: &Plane, name: &DatabaseName, server: &servers::Model) -> Result<u32, Stopped> {
        let engine = plane.engine(server)?;
        if let Some(before) = self.before {
            // What it sent before it was taken over from could take effect after ours.
            engine.end_sessions_of(before).await?;
        }
        let patience = Patience {
            lock: self.settings.lock_timeout(),
            statement: self.settings.statement_timeout(),
            lock_attempts: LOCK_ATTEMPTS,
        };
        let entered = engine.enter_among_others(name, patience).await?;
        let rolled = self.roll(plane, &entered).await;
        if let Err(error) = entered.leave().await {
            tracing::debug!(%error, "a tenant's database was not left cleanly");
        }
        rolled
    }

    /// The version that the database has, if it can be looked at.
    async fn look(&self, plane: &Plane) -> Option<u32> {
        let (name, server) = self.place.as_ref()?;
        let entered = plane.engine(server).ok()?.enter(name).await.ok()?;
        let is_ours = entered.belongs_to(self.target.tenant_id.into()).await.is_ok();
        let version = if is_ours { entered.version().await.ok() } else { None };
        // It was only looked at.
        drop(entered.leave().await);
        version
    }

    async fn roll(&self, plane: &Plane, entered: &Entered) -> Result<u32, Stopped> {
        let tenant = self.target.tenant_id.into();
        if self.is_down {
            entered.belongs_to(tenant).await?;
            tell(plane, &self.target, stored(self.version)).await?;
        }
        let way = if self.is_down { Way::UpOrDown } else { Way::Up };
        Ok(entered.roll(Some(tenant), plane.schema.as_ref(), self.version, way).await?.after)
    }
}
