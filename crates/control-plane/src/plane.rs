//! What every part of one control plane shares: the registry, the key rings, the product, the clock of its limits.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tenancy::Product;
use tenancy::audit::SigningKeys;
use tenancy::seal::{KeyRing, Sealed};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api::servers::{admin_url_subject, next_admin_url_subject};
use crate::audit::Refusals;
use crate::engine::{Engine, EngineError, Engines};
use crate::fleet::Schemas;
use crate::mail::Mail;
use crate::proof::HostProofs;
use crate::provision::{Breakers, Kept, Wake};
use crate::registry::Registry;
use crate::registry::entities::servers;
use crate::schema::TenantSchema;

/// One running control plane; clones share it.
#[derive(Clone)]
pub(crate) struct Plane(Arc<Parts>);

/// The parts of a plane.
pub(crate) struct Parts {
    /// Names this process in leases, and on servers.
    pub(crate) id: Uuid,
    /// What the control plane knows.
    pub(crate) registry: Registry,
    /// Seals tenants' database URLs.
    pub(crate) tenants_ring: KeyRing,
    /// Seals servers' admin URLs and recorded answers; data planes never hold it.
    pub(crate) servers_ring: KeyRing,
    /// Signs the audit trail's checkpoints.
    pub(crate) signing: Arc<SigningKeys>,
    /// Calls that were refused, for the audit trail.
    pub(crate) refusals: Refusals,
    /// What is built on Freehold.
    pub(crate) product: Product,
    /// The product's migrations and seed.
    pub(crate) schema: Arc<dyn TenantSchema>,
    /// How tenants' admins are written to, if they are.
    pub(crate) mail: Option<Mail>,
    /// Tells the runner that there is work.
    pub(crate) wake: Wake,
    /// Servers that failed to answer.
    pub(crate) breakers: Breakers,
    /// Tells the keeper of ready databases that one was taken.
    pub(crate) restock: Notify,
    /// Tells the runner of rollouts that there is news.
    pub(crate) fleet: Notify,
    /// Databases that are ready and were entered already.
    pub(crate) entered: Kept,
    /// Looks whether custom hosts are their tenants'.
    pub(crate) proofs: HostProofs,
    /// Whether tenants' issuers may be in private networks.
    pub(crate) allow_private_issuers: bool,
    /// A node that was not heard for this long counts no more.
    pub(crate) stale_after: Duration,
    /// A node that was not heard for this long is not waited for.
    pub(crate) ack_after: Duration,
    /// How long a deleted tenant can be restored.
    pub(crate) grace: Duration,
    /// How long work that a dead process left is left to it.
    pub(crate) lease: Duration,
    /// How long a slug is held back that a tenant left, renamed or deleted.
    pub(crate) hold_slugs: Duration,
    /// How old a tenant's credentials may become, if they are rotated by themselves.
    pub(crate) rotate_after: Option<Duration>,
    /// Cancelled once the service was told to stop.
    pub(crate) stopping: CancellationToken,
    /// Of servers that were worked lately, with connections that are kept.
    pub(crate) engines: Engines,
    /// What schemas should be, for those whose databases are compared.
    pub(crate) schemas: Schemas,
}

impl Plane {
    /// A plane of these parts.
    pub(crate) fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// To be changed before it is shared.
    #[cfg(test)]
    pub(crate) fn parts_mut(&mut self) -> &mut Parts {
        Arc::get_mut(&mut self.0).expect("nobody shares the plane yet")
    }

    /// The admin's URL of a server.
    pub(crate) fn admin_url(&self, server: &servers::Model) -> Result<SecretString, EngineError> {
        let sealed = Sealed::from_stored(server.sealed_admin_url.as_str());
        self.servers_ring.open(admin_url_subject(server), &sealed).map_err(|error| {
            EngineError::refused(format!("the admin URL of server {:?} does not open: {error}", server.name))
        })
    }

    /// The admin's URL that takes over, if its password is being rotated.
    pub(crate) fn next_admin_url(&self, server: &servers::Model) -> Result<Option<SecretString>, EngineError> {
        let Some(sealed) = &server.next_sealed_admin_url else { return Ok(None) };
        let opened = self.servers_ring.open(next_admin_url_subject(server), &Sealed::from_stored(sealed.as_str()));
        opened.map(Some).map_err(|error| {
            EngineError::refused(format!("the next admin URL of server {:?} does not open: {error}", server.name))
        })
    }

    /// The engine of a server.
    pub(crate) fn engine(&self, server: &servers::Model) -> Result<Arc<dyn Engine>, EngineError> {
        self.engines.of(server, || Ok((self.admin_url(server)?, self.next_admin_url(server)?)))
    }
}

impl std::ops::Deref for Plane {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
