//! Drift: each tenant's schema against what a database of the same version is on the same server, made anew for it. Nothing is
//! changed in any tenant's database.
//!
//! It goes page by page, so that no call takes long however many tenants there are; what differs is looked at once more before
//! it is told. A database that could not be looked at is said, and never taken for one that is well.

mod expected;
mod page;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, future::ready, stream};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};
use serde::Serialize;
use service::Problem;
use tenancy::Status;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;
use uuid::Uuid;

use super::told::shortened;
use super::{Selection, TargetState};
use crate::engine::{DatabaseName, Engine, EngineError, diff, hash};
use crate::plane::Plane;
use crate::registry::entities::{databases, rollout_targets, servers, tenants};
pub(crate) use expected::Schemas;
pub(crate) use page::{Extent, From};

/// Databases that are looked at together, on all servers and on one.
const AT_ONCE: usize = 16;
pub(crate) const ON_SERVER: usize = 4;
/// After this no other database of the page is begun with.
const BEGINNING: Duration = Duration::from_secs(8);
/// One look at one database.
const LOOK: Duration = Duration::from_secs(3);
/// How long a server may take to answer at all.
const REACH: Duration = Duration::from_secs(2);
/// Lines of a difference that are told of one tenant, and how long each may be.
const MOST_LINES: usize = 100;
const LONGEST_LINE: usize = 400;

/// A tenant whose schema is not what it should be, or is not known.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Verified {
    /// The tenant's id.
    pub(crate) tenant: Uuid,
    pub(crate) slug: String,
    /// The server's name.
    pub(crate) server: Option<String>,
    /// `differs` or `unverified`.
    pub(crate) state: &'static str,
    /// The schema version that the database has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<u32>,
    /// What is missing (`- `) and what is there and should not be (`+ `): an object of the schema a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) diff: Vec<String>,
    /// SHA-256 of the schema that was found, by which tenants that drifted alike are known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    /// Why it could not be verified, and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
}

/// How many were looked at, by what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Checked {
    pub(crate) same: usize,
    pub(crate) differs: usize,
    pub(crate) unverified: usize,
}

/// One page.
pub(crate) struct Report {
    pub(crate) found: Vec<Verified>,
    pub(crate) checked: Checked,
    /// Where the next page begins; none on the last.
    pub(crate) next: Option<From>,
}

/// What came of a look at a tenant's schema.
enum Seen {
    Same,
    Differs {
        version: u32,
        diff: Vec<String>,
        fingerprint: String,
    },
    Unverified(String),
    /// The tenant was deleted meanwhile.
    Gone,
}

/// Looks at one page of the selected tenants.
pub(crate) async fn verify(plane: &Plane, selection: &Selection, from: From) -> Result<Report, Problem> {
    let selected = selection.find(plane.registry.db(), 0, false).await?;
    let page = page::read(plane, &selected, &from).await?;
    let look = Look::of(plane, &page.tenants).await?;
    let begun = Instant::now();
    let looks = stream::iter(0..page.tenants.len())
        // The first is begun with whatever the time is.
        .take_while(|_| ready(begun.elapsed() < BEGINNING))
        .map(|number| look.at(&page.tenants, number))
        .buffer_unordered(AT_ONCE);
    let mut seen: Vec<(usize, Seen)> = looks.collect().await;
    let next = page.next_after(seen.len(), &from);
    seen.sort_by_key(|(number, _)| *number);
    let (mut found, mut checked) = (Vec::new(), Checked::default());
    for (number, seen) in seen {
        let tenant = &page.tenants[number];
        let mut verified = Verified {
            tenant: tenant.id,
            slug: tenant.slug.clone(),
            server: tenant.server_id.and_then(|id| look.servers.get(&id)).map(|server| server.name.clone()),
            state: "differs",
            version: None,
            diff: Vec::new(),
            fingerprint: None,
            detail: None,
        };
        match seen {
            Seen::Gone => continue,
            Seen::Same => {
                checked.same += 1;
                continue;
            }
            Seen::Differs { version, diff, fingerprint } => {
                checked.differs += 1;
                verified.version = Some(version);
                verified.diff = shortened(diff, MOST_LINES, LONGEST_LINE);
                verified.fingerprint = Some(fingerprint);
            }
            Seen::Unverified(detail) => {
                checked.unverified += 1;
                verified.state = "unverified";
                verified.detail = Some(detail);
            }
        }
        found.push(verified);
    }
    Ok(Report { found, checked, next })
}

/// What a look at the page's tenants needs, read for all of them together.
struct Look<'a> {
    plane: &'a Plane,
    databases: HashMap<Uuid, DatabaseName>,
    servers: HashMap<Uuid, servers::Model>,
    turns: HashMap<Uuid, Semaphore>,
    /// Servers that were found not to answer: none of their databases is waited for again.
    silent: Mutex<HashSet<Uuid>>,
    /// Why there is nothing to compare a version on a server with: it is not tried again for each tenant.
    unmade: Mutex<HashMap<(Uuid, u32), String>>,
}

impl<'a> Look<'a> {
    async fn of(plane: &'a Plane, tenants: &[tenants::Model]) -> Result<Self, DbErr> {
        let db = plane.registry.db();
        let ids = tenants.iter().map(|tenant| tenant.id);
        let rows = databases::Entity::find().filter(databases::Column::TenantId.is_in(ids)).all(db).await?;
        let databases = rows.into_iter().filter_map(|row| Some((row.tenant_id, row.name.parse().ok()?))).collect();
        let on: HashSet<Uuid> = tenants.iter().filter_map(|tenant| tenant.server_id).collect();
        let rows = servers::Entity::find().filter(servers::Column::Id.is_in(on)).all(db).await?;
        let servers: HashMap<Uuid, servers::Model> = rows.into_iter().map(|row| (row.id, row)).collect();
        let turns = servers.keys().map(|id| (*id, Semaphore::new(ON_SERVER))).collect();
        Ok(Self { plane, databases, servers, turns, silent: Mutex::default(), unmade: Mutex::default() })
    }

    async fn at(&self, tenants: &[tenants::Model], number: usize) -> (usize, Seen) {
        let tenant = &tenants[number];
        let seen = match self.compare(tenant).await {
            Ok(seen) => seen,
            Err(why) if self.is_gone(tenant.id).await => {
                tracing::debug!(tenant = %tenant.id, why, "a tenant was deleted while its schema was to be verified");
                Seen::Gone
            }
            Err(why) => Seen::Unverified(why),
        };
        (number, seen)
    }

    async fn compare(&self, tenant: &tenants::Model) -> Result<Seen, String> {
        let server = tenant.server_id.and_then(|id| self.servers.get(&id));
        let (Some(server), Some(name)) = (server, self.databases.get(&tenant.id)) else {
            return Err("the registry has no database for the tenant: run `freehold tenant doctor`".to_owned());
        };
        let turn = self.turns.get(&server.id).ok_or("its server is gone: verify again")?;
        let _turn = turn.acquire().await.map_err(|_| "its server is gone: verify again")?;
        // Somebody may change it between two looks: what is told was seen twice.
        let mut before = None;
        loop {
            let (version, found) = self.read(server, name, tenant.id).await?;
            let expected = self.expected(server, version).await?;
            let mut lines = diff(&expected, &found);
            let known = self.known_version(tenant.id).await?;
            if known != version {
                lines.insert(0, format!("- schema version {known}, as the registry says"));
                lines.insert(1, format!("+ schema version {version}, as the database says"));
            }
            if lines.is_empty() {
                return Ok(Seen::Same);
            }
            if self.is_migrated_now(tenant.id).await? {
                return Err("a rollout is at work on it: verify it again when that has ended".to_owned());
            }
            if before.as_ref() == Some(&lines) {
                return Ok(Seen::Differs { version, diff: lines, fingerprint: hash(&found) });
            }
            if before.is_some() {
                return Err("it changes while it is looked at: verify it again".to_owned());
            }
            before = Some(lines);
        }
    }

    /// What the schema of the version is on the server.
    async fn expected(&self, server: &servers::Model, version: u32) -> Result<Lines, String> {
        let unmade = || self.unmade.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = unmade().get(&(server.id, version)) {
            return Err(why.clone());
        }
        let expected = expected::of(self.plane, server, version).await;
        expected.inspect_err(|why| drop(unmade().insert((server.id, version), why.clone())))
    }

    /// The version that the database has, and its schema.
    async fn read(
        &self,
        server: &servers::Model,
        name: &DatabaseName,
        tenant: Uuid,
    ) -> Result<(u32, Vec<String>), String> {
        let is_silent = || self.silent.lock().unwrap_or_else(PoisonError::into_inner).contains(&server.id);
        let silent = || format!("the server {} does not answer: verify again when it does", server.name);
        if is_silent() {
            return Err(silent());
        }
        let engine = self.plane.engine(server).map_err(|error| error.to_string())?;
        let late = |_| Err(EngineError::unavailable("the database did not answer in time: verify again"));
        let read = timeout(LOOK, read(engine.as_ref(), name, tenant)).await.unwrap_or_else(late);
        match read {
            Err(error) if error.is_unavailable() => {
                if !matches!(timeout(REACH, engine.answers()).await, Ok(Ok(()))) {
                    self.silent.lock().unwrap_or_else(PoisonError::into_inner).insert(server.id);
                    return Err(silent());
                }
                Err(error.to_string())
            }
            read => read.map_err(|error| {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%tenant, source, "a tenant's schema could not be verified: {error}");
                error.to_string()
            }),
        }
    }

    async fn is_gone(&self, tenant: Uuid) -> bool {
        let row = tenants::Entity::find_by_id(tenant).one(self.plane.registry.db()).await;
        row.is_ok_and(|row| row.is_none_or(|row| row.status == Status::Deleted.as_str()))
    }

    async fn known_version(&self, tenant: Uuid) -> Result<u32, String> {
        let known = tenants::Entity::find_by_id(tenant)
            .select_only()
            .column(tenants::Column::SchemaVersion)
            .into_tuple::<i32>()
            .one(self.plane.registry.db())
            .await;
        known.map(|known| known.unwrap_or_default().unsigned_abs()).map_err(|error| unread(&error))
    }

    /// Whether a rollout has its database in hand.
    async fn is_migrated_now(&self, tenant: Uuid) -> Result<bool, String> {
        let at_work = rollout_targets::Entity::find()
            .select_only()
            .column(rollout_targets::Column::RolloutId)
            .filter(rollout_targets::Column::TenantId.eq(tenant))
            .filter(rollout_targets::Column::State.eq(TargetState::Running.as_str()))
            .into_tuple::<Uuid>()
            .one(self.plane.registry.db())
            .await;
        at_work.map(|at_work| at_work.is_some()).map_err(|error| unread(&error))
    }
}

fn unread(error: &DbErr) -> String {
    tracing::warn!(%error, "the registry was not read while schemas were verified");
    "the registry did not answer: verify again".to_owned()
}

async fn read(engine: &dyn Engine, name: &DatabaseName, tenant: Uuid) -> Result<(u32, Vec<String>), EngineError> {
    let entered = engine.enter(name).await?;
    let read = async {
        entered.belongs_to(tenant.into()).await?;
        Ok((entered.version().await?, entered.schema().await?))
    }
    .await;
    // It was only looked at.
    drop(entered.leave().await);
    read
}

/// Shared texts of a schema, an object a line.
type Lines = Arc<[String]>;
