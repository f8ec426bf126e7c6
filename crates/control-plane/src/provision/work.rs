//! What a step works with: the plane, the lease, and the rows and the server of the operation's tenant.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, QuerySelect};
use secrecy::{ExposeSecret, SecretString};
use tenancy::TenantId;
use tenancy::route::Revision;
use tenancy::seal::{Purpose, Sealed, Subject};
use tokio::sync::OnceCell;
use url::Url;
use uuid::Uuid;

use super::Kind;
use super::lease::Lease;
use super::steps::StepError;
use crate::engine::{DatabaseName, Engine, EngineError, Entered};
use crate::plane::Plane;
use crate::registry::change::Change;
use crate::registry::entities::{databases, operations, servers, tenants};

/// One operation's context.
pub(super) struct Work {
    pub(super) plane: Plane,
    pub(super) lease: Lease,
    /// The tenant's database, entered by one step and used by those after it.
    entered: tokio::sync::Mutex<Option<Arc<Entered>>>,
    /// The schema version that the database is known to have, until it is written down.
    schema_version: Mutex<Option<i32>>,
    /// How many rows were counted, until it is written down.
    row_counts: OnceCell<serde_json::Value>,
    /// Data planes that a forced rotation did not wait for, until that is written down.
    cut_off: OnceCell<Vec<Uuid>>,
    /// A database that was ready was taken: the stock lacks it.
    took_ready: AtomicBool,
    /// Whoever held the lease before works on no server any more.
    is_alone: OnceCell<()>,
    /// The server that it was done on, once one was needed.
    server: OnceLock<Uuid>,
}

/// A tenant's database as it was claimed, and the engine of the server that it is on, or will be.
pub(super) struct Claimed {
    pub(super) name: DatabaseName,
    pub(super) row: databases::Model,
    pub(super) server: servers::Model,
    pub(super) engine: Arc<dyn Engine>,
}

/// For whom a tenant's database URL is sealed.
pub(crate) fn url_subject(tenant: Uuid, generation: u64) -> Subject {
    Subject { purpose: Purpose::TenantUrl, id: tenant, generation }
}

impl Work {
    pub(super) fn new(plane: Plane, lease: Lease) -> Self {
        Self {
            plane,
            lease,
            entered: tokio::sync::Mutex::const_new(None),
            schema_version: Mutex::new(None),
            row_counts: OnceCell::const_new(),
            cut_off: OnceCell::const_new(),
            took_ready: AtomicBool::new(false),
            is_alone: OnceCell::const_new(),
            server: OnceLock::new(),
        }
    }

    /// A change that only the holder of the lease can commit.
    pub(super) async fn change(&self) -> Result<Change, StepError> {
        self.lease.change().await
    }

    /// Ends what whoever held the lease before may still be doing on the tenant's server: a statement that it sent before
    /// it was taken over could take effect after ours. One that is well, and lost this lease alone, loses its sessions on the
    /// server for its other work too: sessions are named after processes. That work's next attempt makes new ones.
    pub(super) async fn be_alone(&self) -> Result<(), StepError> {
        if self.lease.operation().kind == Kind::Move.as_str() {
            // It works on no server.
            return Ok(());
        }
        let Some(before) = self.lease.before() else { return Ok(()) };
        let end = async {
            let engine = match self.lease.operation().server_id {
                Some(_) => Some(self.plane.engine(&self.own_server().await?)?),
                None => self.database().await?.map(|database| database.engine),
            };
            match engine {
                Some(engine) => Ok(engine.end_sessions_of(before).await?),
                None => Ok(()),
            }
        };
        self.is_alone.get_or_try_init(|| end).await.copied()
    }

    /// The server did not answer, if it was one.
    pub(super) fn note_silence(&self) {
        if let Some(server) = self.server.get() {
            self.plane.breakers.open(*server);
        }
    }

    /// All was done that the server had to do, if it had.
    pub(super) fn note_done(&self) {
        if let Some(server) = self.server.get() {
            self.plane.breakers.close(*server);
        }
    }

    /// Of work on a server, which has no step that asks for it, none that there is.
    pub(super) fn tenant_id(&self) -> Uuid {
        self.lease.operation().tenant_id.unwrap_or_default()
    }

    /// The server that the operation itself is on.
    pub(super) fn server_id(&self) -> Result<Uuid, StepError> {
        self.lease.operation().server_id.ok_or_else(|| StepError::refused("the operation is on no server"))
    }

    pub(super) async fn own_server(&self) -> Result<servers::Model, StepError> {
        let server = self.server_row(self.plane.registry.db(), self.server_id()?).await?;
        let _ = self.server.set(server.id);
        Ok(server)
    }

    pub(super) fn tenant(&self) -> TenantId {
        self.tenant_id().into()
    }

    pub(super) async fn tenant_row(&self) -> Result<tenants::Model, StepError> {
        self.tenant_in(self.plane.registry.db()).await
    }

    /// As the change has it.
    pub(super) async fn tenant_in(&self, db: &impl ConnectionTrait) -> Result<tenants::Model, StepError> {
        let row = tenants::Entity::find_by_id(self.tenant_id()).one(db).await?;
        row.ok_or_else(|| StepError::refused("the tenant is gone from the registry"))
    }

    pub(super) async fn server_row(&self, db: &impl ConnectionTrait, id: Uuid) -> Result<servers::Model, StepError> {
        let row = servers::Entity::find_by_id(id).one(db).await?;
        row.ok_or_else(|| StepError::refused("the server is gone from the registry"))
    }

    /// As [`Work::server_row`], and nobody gives the server another address until the change ends: what is made for its
    /// present one is written down before, and follows it.
    pub(super) async fn address_of(&self, change: &Change, id: Uuid) -> Result<servers::Model, StepError> {
        let row = servers::Entity::find_by_id(id).lock(LockType::KeyShare).one(change.db()).await?;
        row.ok_or_else(|| StepError::refused("the server is gone from the registry"))
    }

    /// The row of the tenant's database, which an earlier step claimed.
    pub(super) async fn claimed_row(&self, db: &impl ConnectionTrait) -> Result<databases::Model, StepError> {
        let row = databases::Entity::find().filter(databases::Column::TenantId.eq(self.tenant_id())).one(db).await?;
        row.ok_or_else(|| StepError::refused("the tenant has no database in the registry"))
    }

    /// As [`Work::claimed_row`], and nobody else changes it until the change ends.
    pub(super) async fn locked_row(&self, change: &Change) -> Result<databases::Model, StepError> {
        let row = databases::Entity::find().filter(databases::Column::TenantId.eq(self.tenant_id()));
        let row = row.lock(LockType::NoKeyUpdate).one(change.db()).await?;
        row.ok_or_else(|| StepError::refused("the tenant has no database in the registry"))
    }

    /// The tenant's database, entered as its owner.
    pub(super) async fn entered(&self) -> Result<Arc<Entered>, StepError> {
        let mut entered = self.entered.lock().await;
        if let Some(entered) = &*entered {
            return Ok(Arc::clone(entered));
        }
        let now = self.enter(&self.claimed().await?).await?;
        *entered = Some(Arc::clone(&now));
        Ok(now)
    }

    /// As [`Work::entered`], where the database is known.
    pub(super) async fn entered_of(&self, database: &Claimed) -> Result<Arc<Entered>, StepError> {
        let mut entered = self.entered.lock().await;
        if let Some(entered) = &*entered {
            return Ok(Arc::clone(entered));
        }
        let now = self.enter(database).await?;
        *entered = Some(Arc::clone(&now));
        Ok(now)
    }

    async fn enter(&self, database: &Claimed) -> Result<Arc<Entered>, StepError> {
        Ok(Arc::new(match self.plane.entered.take(&database.name, database.server.address_number) {
            Some(entered) => entered,
            None => database.engine.enter(&database.name).await?,
        }))
    }

    /// Leaves the tenant's database: it is done with, or the connection may be what was wrong.
    pub(super) async fn leave(&self) {
        let entered = self.entered.lock().await.take().and_then(Arc::into_inner);
        if let Some(entered) = entered
            && let Err(error) = entered.leave().await
        {
            tracing::debug!(%error, "a tenant's database was not left cleanly");
        }
    }

    pub(super) fn note_schema_version(&self, version: i32) {
        *self.schema_version.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
    }

    pub(super) fn take_schema_version(&self) -> Option<i32> {
        self.schema_version.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Numbers by table; a text that says why there are none; null where there was no database to count in.
    pub(super) fn note_row_counts(&self, counts: serde_json::Value) {
        // A repeated count is of the same rows: nobody writes any more.
        let _ = self.row_counts.set(counts);
    }

    pub(super) fn row_counts(&self) -> serde_json::Value {
        self.row_counts.get().cloned().unwrap_or_default()
    }

    pub(super) fn note_cut_off(&self, nodes: Vec<Uuid>) {
        // A step that is repeated in one walk cuts off the same.
        let _ = self.cut_off.set(nodes);
    }

    pub(super) fn cut_off(&self) -> &[Uuid] {
        self.cut_off.get().map_or(&[], Vec::as_slice)
    }

    /// The tenant's database, if it was claimed.
    pub(super) async fn database(&self) -> Result<Option<Claimed>, StepError> {
        let row = databases::Entity::find()
            .filter(databases::Column::TenantId.eq(self.tenant_id()))
            .one(self.plane.registry.db())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let name = row.name.parse()?;
        let server = self.server_row(self.plane.registry.db(), row.server_id).await?;
        let engine = self.plane.engine(&server)?;
        let _ = self.server.set(server.id);
        Ok(Some(Claimed { name, row, server, engine }))
    }

    /// The tenant's database, which an earlier step claimed.
    pub(super) async fn claimed(&self) -> Result<Claimed, StepError> {
        self.database().await?.ok_or_else(|| StepError::refused("the tenant has no database in the registry"))
    }

    pub(super) fn note_took_ready(&self) {
        self.took_ready.store(true, Ordering::Relaxed);
    }

    pub(super) fn took_ready(&self) -> bool {
        self.took_ready.load(Ordering::Relaxed)
    }

    /// Data planes that have not applied what they are waited for to apply: the tenant's revision when that was first looked
    /// at. Later changes of the tenant do not prolong the wait.
    pub(super) async fn nodes_behind(&self) -> Result<Vec<Uuid>, StepError> {
        let registry = &self.plane.registry;
        let id = self.lease.operation().id;
        let operation = operations::Entity::find_by_id(id).one(registry.db()).await?;
        let awaited = if let Some(awaited) = operation.and_then(|operation| operation.awaited) {
            awaited
        } else {
            let change = self.change().await?;
            let revision = self.tenant_in(change.db()).await?.revision;
            operations::Entity::update_many()
                .col_expr(operations::Column::Awaited, Expr::value(revision))
                .filter(operations::Column::Id.eq(id))
                .exec(change.db())
                .await?;
            change.commit().await?;
            revision
        };
        let alive_since = registry.now() - self.plane.stale_after;
        Ok(registry.nodes_behind(Revision(awaited.unsigned_abs()), alive_since).await?)
    }

    /// The password in a database's sealed URL; empty where its engine knows none.
    pub(super) fn password(&self, row: &databases::Model) -> Result<SecretString, StepError> {
        self.password_in(row.tenant_id, row.generation, &row.sealed_url)
    }

    /// The password of the login role that is made ready.
    pub(super) fn next_password(&self, row: &databases::Model) -> Result<SecretString, StepError> {
        match (row.next_generation, &row.next_sealed_url) {
            (Some(generation), Some(sealed)) => self.password_in(row.tenant_id, generation, sealed),
            _ => Err(StepError::refused("the tenant's next database URL is gone from the registry")),
        }
    }

    fn password_in(&self, tenant: Uuid, generation: i64, sealed: &str) -> Result<SecretString, StepError> {
        let subject = url_subject(tenant, generation.unsigned_abs());
        let url = self
            .plane
            .tenants_ring
            .open(subject, &Sealed::from_stored(sealed))
            .map_err(|error| StepError::refused(format!("the tenant's database URL does not open: {error}")))?;
        Ok(password_in(&url)?)
    }
}

/// The password in a database's URL; empty where its engine knows none.
pub(crate) fn password_in(url: &SecretString) -> Result<SecretString, EngineError> {
    let url = Url::parse(url.expose_secret())
        .map_err(|_| EngineError::refused("the tenant's database URL is damaged: rotate its credentials"))?;
    // Of URL-safe letters alone, so that nothing of it is escaped.
    Ok(url.password().unwrap_or_default().to_owned().into())
}
