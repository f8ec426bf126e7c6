//! One target: a tenant's database is brought to the version, and what came of it.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter};
use tenancy::Status;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::settings::Settings;
use super::stored;
use super::take::Taken;
use super::tell::tell;
use crate::engine::{DatabaseName, EngineError, Entered, Patience, Way};
use crate::plane::Plane;
use crate::registry::entities::{databases, rollout_targets, servers, tenants};

/// How often a migration that does not get its locks is tried before the target makes room for others.
const LOCK_ATTEMPTS: u32 = 3;

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
    let ids: Vec<Uuid> = taken.targets.iter().map(|(target, _)| target.tenant_id).collect();
    let tenants: HashMap<Uuid, tenants::Model> = tenants::Entity::find()
        .filter(tenants::Column::Id.is_in(ids.iter().copied()))
        .all(db)
        .await?
        .into_iter()
        .map(|row| (row.id, row))
        .collect();
    let databases: HashMap<Uuid, databases::Model> = databases::Entity::find()
        .filter(databases::Column::TenantId.is_in(ids))
        .all(db)
        .await?
        .into_iter()
        .map(|row| (row.tenant_id, row))
        .collect();
    let on: Vec<Uuid> = databases.values().map(|row| row.server_id).collect();
    let servers: HashMap<Uuid, servers::Model> = servers::Entity::find()
        .filter(servers::Column::Id.is_in(on))
        .all(db)
        .await?
        .into_iter()
        .map(|row| (row.id, row))
        .collect();
    let settings = Arc::new(taken.settings);
    let job = |(target, before): (rollout_targets::Model, Option<Uuid>)| {
        let is_there = tenants.get(&target.tenant_id).is_some_and(|row| row.status != Status::Deleted.as_str());
        let database = databases.get(&target.tenant_id).filter(|_| is_there);
        let on = database.and_then(|row| Some((row.name.parse().ok()?, servers.get(&row.server_id)?.clone())));
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
        let (has, end) = match work.await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => (None, End::Failed("the work panicked; the control plane's log has its words".to_owned())),
            Err(_) => (None, End::Again("it did not come to an end in time".to_owned())),
        };
        let target = self.target;
        Outcome {
            rollout: target.rollout_id,
            tenant: target.tenant_id,
            fence: target.fence,
            attempts: target.attempts,
            has,
            took: begun.elapsed(),
            end,
        }
    }

    async fn work(&self, plane: &Plane) -> (Option<u32>, End) {
        let Some((name, server)) = &self.place else {
            return (None, End::Skipped("the tenant's database is gone: it was deleted meanwhile".to_owned()));
        };
        if self.is_down
            && let Err(untold) = tell(plane, &self.target, stored(self.version)).await
        {
            // Nothing was taken back. Given up, the registry says again what the database has.
            let is_last = self.target.attempts.unsigned_abs() >= self.settings.attempts;
            let had = self.target.version_after.unwrap_or(self.target.version_before).unsigned_abs();
            return (is_last.then_some(had), End::Again(untold.to_string()));
        }
        match self.migrate(plane, name, server).await {
            Ok(has) => (Some(has), End::Done),
            Err((has, error)) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(tenant = %self.target.tenant_id, rollout = %self.target.rollout_id, source,
                    "a target was not migrated: {error}");
                let text = error.to_string();
                (has, if error.is_unavailable() { End::Again(text) } else { End::Failed(text) })
            }
        }
    }

    /// Answers the version that the database has in the end, also where it could not be brought to the one that was asked
    /// for.
    async fn migrate(
        &self,
        plane: &Plane,
        name: &DatabaseName,
        server: &servers::Model,
    ) -> Result<u32, (Option<u32>, EngineError)> {
        let nothing = |error| (None, error);
        let engine = plane.engine(server).map_err(nothing)?;
        if let Some(before) = self.before {
            // What it sent before it was taken over from could take effect after ours.
            engine.end_sessions_of(before).await.map_err(nothing)?;
        }
        let entered = engine.enter(name).await.map_err(nothing)?;
        let rolled = self.roll(plane, &entered).await;
        let has = match rolled {
            Ok(rolled) => Ok(rolled),
            // Some of its migrations may have taken effect.
            Err(error) => Err((entered.version().await.ok(), error)),
        };
        if let Err(error) = entered.leave().await {
            tracing::debug!(%error, "a tenant's database was not left cleanly");
        }
        has
    }

    async fn roll(&self, plane: &Plane, entered: &Entered) -> Result<u32, EngineError> {
        entered.belongs_to(self.target.tenant_id.into()).await?;
        let patience = Patience {
            lock: self.settings.lock_timeout(),
            statement: self.settings.statement_timeout(),
            lock_attempts: LOCK_ATTEMPTS,
        };
        let way = if self.is_down { Way::UpOrDown } else { Way::Up };
        Ok(entered.roll(plane.schema.as_ref(), self.version, way, &patience).await?.after)
    }
}
