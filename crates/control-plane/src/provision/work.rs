//! What a step works with: the plane, the lease, and the rows and the server of the operation's tenant.

use std::sync::Arc;

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use secrecy::{ExposeSecret, SecretString};
use tenancy::TenantId;
use tenancy::seal::{Purpose, Sealed, Subject};
use url::Url;
use uuid::Uuid;

use super::lease::Lease;
use super::steps::StepError;
use crate::api::servers::admin_url_subject;
use crate::engine::{DatabaseName, Engine, EngineKind, engine_for};
use crate::plane::Plane;
use crate::registry::change::Change;
use crate::registry::entities::{databases, servers, tenants};

/// One operation's context.
pub(super) struct Work {
    pub(super) plane: Plane,
    pub(super) lease: Lease,
}

/// A tenant's database as it was claimed, and the engine of the server that it is on, or will be.
pub(super) struct Claimed {
    pub(super) name: DatabaseName,
    pub(super) row: databases::Model,
    pub(super) server: servers::Model,
    pub(super) engine: Arc<dyn Engine>,
}

/// For whom a tenant's database URL is sealed.
pub(super) fn url_subject(tenant: Uuid, generation: u64) -> Subject {
    Subject { purpose: Purpose::TenantUrl, id: tenant, generation }
}

impl Work {
    /// A change that only the holder of the lease can commit.
    pub(super) async fn change(&self) -> Result<Change, StepError> {
        self.lease.change().await
    }

    pub(super) fn tenant_id(&self) -> Uuid {
        self.lease.operation().tenant_id
    }

    pub(super) fn tenant(&self) -> TenantId {
        self.tenant_id().into()
    }

    pub(super) async fn tenant_row(&self) -> Result<tenants::Model, StepError> {
        let row = tenants::Entity::find_by_id(self.tenant_id()).one(self.plane.registry.db()).await?;
        row.ok_or_else(|| StepError::refused("the tenant is gone from the registry"))
    }

    /// The server of this id and its engine.
    pub(super) async fn server(&self, id: Uuid) -> Result<(servers::Model, Arc<dyn Engine>), StepError> {
        let row = servers::Entity::find_by_id(id).one(self.plane.registry.db()).await?;
        let row = row.ok_or_else(|| StepError::refused("the tenant's server is gone from the registry"))?;
        let sealed = Sealed::from_stored(row.sealed_admin_url.as_str());
        let admin_url = self.plane.servers_ring.open(admin_url_subject(&row), &sealed).map_err(|error| {
            StepError::refused(format!("the admin URL of server {:?} does not open: {error}", row.name))
        })?;
        let kind: EngineKind = row.engine.parse()?;
        let engine = engine_for(kind, &admin_url)?;
        Ok((row, engine))
    }

    /// The tenant's database, if it was claimed.
    pub(super) async fn database(&self) -> Result<Option<Claimed>, StepError> {
        let row = databases::Entity::find()
            .filter(databases::Column::TenantId.eq(self.tenant_id()))
            .one(self.plane.registry.db())
            .await?;
        let Some(row) = row else { return Ok(None) };
        let name = row.name.parse()?;
        let (server, engine) = self.server(row.server_id).await?;
        Ok(Some(Claimed { name, row, server, engine }))
    }

    /// The tenant's database, which an earlier step claimed.
    pub(super) async fn claimed(&self) -> Result<Claimed, StepError> {
        self.database().await?.ok_or_else(|| StepError::refused("the tenant has no database in the registry"))
    }

    /// The password in a database's sealed URL; empty where its engine knows none.
    pub(super) fn password(&self, row: &databases::Model) -> Result<SecretString, StepError> {
        let subject = url_subject(row.tenant_id, row.generation.unsigned_abs());
        let url = self
            .plane
            .tenants_ring
            .open(subject, &Sealed::from_stored(row.sealed_url.as_str()))
            .map_err(|error| StepError::refused(format!("the tenant's database URL does not open: {error}")))?;
        let url = Url::parse(url.expose_secret())
            .map_err(|_| StepError::refused("the tenant's database URL is damaged: rotate its credentials"))?;
        // Of URL-safe letters alone, so that nothing of it is escaped.
        Ok(url.password().unwrap_or_default().to_owned().into())
    }
}
