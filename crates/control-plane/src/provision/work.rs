//! What a step works with: the plane, the lease, and the rows and the server of the operation's tenant.

use std::sync::Arc;

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use secrecy::{ExposeSecret, SecretString};
use tenancy::TenantId;
use tenancy::route::Revision;
use tenancy::seal::{Purpose, Sealed, Subject};
use url::Url;
use uuid::Uuid;

use super::lease::Lease;
use super::steps::StepError;
use crate::engine::{DatabaseName, Engine};
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
pub(crate) fn url_subject(tenant: Uuid, generation: u64) -> Subject {
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
        let engine = self.plane.engine(&row)?;
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

    /// Data planes that may serve or dial something older than this.
    pub(super) async fn nodes_behind(&self, revision: Revision) -> Result<Vec<Uuid>, StepError> {
        let registry = &self.plane.registry;
        Ok(registry.nodes_behind(revision, registry.now() - self.plane.stale_after).await?)
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
        let url = Url::parse(url.expose_secret())
            .map_err(|_| StepError::refused("the tenant's database URL is damaged: rotate its credentials"))?;
        // Of URL-safe letters alone, so that nothing of it is escaped.
        Ok(url.password().unwrap_or_default().to_owned().into())
    }
}
