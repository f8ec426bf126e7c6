//! From a configuration to a running control plane: registry, servers, runner, API.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use service::Service;
use service::problem::BoxError;
use tenancy::Product;
use tenancy::audit::SigningKeys;
use tenancy::seal::KeyRing;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::api::{self, Tokens};
use crate::audit::{self, Refusals};
use crate::config::{Config, RESTORED};
use crate::engine::{self, Engines, Worker};
use crate::fleet;
use crate::mail::{self, Mail};
use crate::plane::{Parts, Plane};
use crate::proof::HostProofs;
use crate::provision::{self, Breakers, Kept, Wake};
use crate::registry::Registry;
use crate::rewrap;
use crate::schema::TenantSchema;
use crate::shares;

/// Starts a control plane for a product, and answers its API.
///
/// It opens (and, told to, creates) the registry, brings it up to date, registers the configured servers, and begins to
/// work on what is to be done.
///
/// ```no_run
/// # struct Schema;
/// # #[async_trait::async_trait]
/// # impl control_plane::TenantSchema for Schema {
/// #     fn migrations(&self) -> Vec<Box<dyn sea_orm_migration::MigrationTrait>> { Vec::new() }
/// #     async fn seed(&self, _: &sea_orm::DatabaseTransaction, _: &control_plane::NewTenant)
/// #         -> Result<(), sea_orm::DbErr> { Ok(()) }
/// # }
/// use std::process::ExitCode;
/// use std::sync::Arc;
///
/// fn main() -> ExitCode {
///     service::run("notes-control-plane", async |config: control_plane::Config, service| {
///         let product = tenancy::Product {
///             name: "Notes",
///             mount: "/api",
///             schema_version: 1,
///             scopes: &["notes:read", "notes:write"],
///             config_keys: Vec::new(),
///         };
///         control_plane::start(config, product, Arc::new(Schema), service).await
///     })
/// }
/// ```
pub async fn start(
    config: Config,
    product: Product,
    schema: Arc<dyn TenantSchema>,
    service: Service,
) -> Result<Router, BoxError> {
    if let Some(admin) = &config.registry.create_from {
        engine::ensure_database(admin, &config.registry.url).await?;
    }
    let newest = u32::try_from(schema.migrations().len()).unwrap_or(u32::MAX);
    let registry = Registry::open(&config.registry.url, newest).await?;
    if service.is_told(RESTORED) {
        // Before anything is worked on.
        let old = registry.history().await?.epoch;
        let epoch = registry.begin_epoch(old).await?.epoch;
        tracing::warn!(%old, %epoch,
            "told that the registry was restored: another history begins, and what was ordered before is held");
    }
    let stopping = service.lifecycle.stopping();
    let id = Uuid::new_v4();
    let plane = Plane::new(Parts {
        id,
        registry: registry.clone(),
        tenants_ring: KeyRing::new(&config.seal.tenants)?,
        servers_ring: KeyRing::new(&config.seal.servers)?,
        signing: Arc::new(SigningKeys::new(&config.audit.signing)?),
        refusals: Refusals::default(),
        mail: config.mail.as_ref().map(|mail| Mail::of(mail, &product)).transpose()?,
        product,
        schema,
        wake: Wake::default(),
        breakers: Breakers::default(),
        restock: Notify::new(),
        fleet: Notify::new(),
        entered: Kept::default(),
        proofs: HostProofs::new(&config.domains)?,
        allow_private_issuers: config.tokens.allow_private_issuers,
        stale_after: Duration::from_secs(config.tenants.stale_after_seconds),
        ack_after: Duration::from_secs(config.tenants.ack_seconds),
        grace: Duration::from_secs(config.tenants.grace_seconds),
        lease: Duration::from_secs(config.tenants.lease_seconds),
        hold_slugs: Duration::from_secs(config.tenants.hold_slug_seconds),
        rotate_after: config.tenants.rotate_after(),
        stopping: stopping.clone(),
        schemas: fleet::Schemas::default(),
        engines: Engines::new(Worker {
            id,
            scram_iterations: config.tenants.scram_iterations,
            patience: Worker::PATIENCE,
        }),
    });
    let keep_operations = config.tenants.keep_operations();
    rewrap::check_keys(&plane).await?;
    for server in config.servers {
        let name = server.name.clone();
        api::servers::ensure(&plane, server).await.map_err(|problem| {
            let why = problem.source_chain().unwrap_or_default();
            format!("cannot register the server {name:?} of the configuration: {problem} {why}")
        })?;
    }
    let probed = registry.clone();
    service.health.register("registry", move || {
        let registry = probed.clone();
        async move { registry.check().await }
    });
    let every = Duration::from_secs(config.audit.checkpoint_seconds);
    let signing = audit::run(registry.clone(), Arc::clone(&plane.signing), every, stopping.clone());
    service.lifecycle.spawn("checkpoints", signing);
    let refusals = plane.refusals.clone().sum_up(registry.clone(), service.lifecycle.drained());
    service.lifecycle.spawn("refusals", refusals);
    service.lifecycle.spawn("watch", registry.watch(stopping.clone()));
    service.lifecycle.spawn("provision", provision::run(plane.clone(), stopping.clone()));
    service.lifecycle.spawn("fleet", fleet::run(plane.clone(), stopping.clone()));
    service.lifecycle.spawn("mail", mail::run(plane.clone(), stopping.clone()));
    service.lifecycle.spawn("left", shares::free_left(plane.clone(), stopping.clone()));
    service.lifecycle.spawn("anchors", shares::make_anchors(plane.clone(), stopping.clone()));
    service.lifecycle.spawn("anchors-there", shares::look_for_anchors(plane.clone(), stopping.clone()));
    service.lifecycle.spawn("standing", shares::watch_standing(plane.clone(), stopping.clone()));
    service.lifecycle.spawn("stock", provision::keep(plane.clone(), stopping.clone()));
    if let Some(age) = plane.rotate_after {
        service.lifecycle.spawn("rotation", provision::rotate_by_age(plane.clone(), age, stopping.clone()));
    }
    if let Some(keep) = keep_operations {
        service.lifecycle.spawn("prune", provision::prune(plane.clone(), keep, stopping));
    }
    Ok(api::router(plane, Tokens::new(&config.tokens.bootstrap, &config.tokens.node))?)
}
