//! From a configuration to a running data plane: identity, feed, admission, the product's handlers.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use service::Problem;
use service::docs::describe;
use service::layers::name_endpoints;
use service::problem::BoxError;
use tenancy::seal::KeyRing;
use tenancy::{Product, TenantId};
use tower::Service;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Info, OpenApi, Paths};

use crate::admission::{AdmissionLayer, Door, identify::Naming, session_for};
use crate::audit::{self, Audit, ship};
use crate::config::Config;
use crate::handlers::Handlers;
use crate::key_uses::{KeyUsesToTell, tell};
use crate::limits::{Limits, system_clock};
use crate::node::Node;
use crate::plane::{Parts, Plane};
use crate::pools::Pools;
use crate::routes::{Control, Routes, follow};
use crate::session::TenantSession;
use crate::strangers::Strangers;
use crate::tokens::Tokens;

/// Starts a data plane for a product, and answers its API. Paths of `handlers` are below the product's mount.
///
/// Every handler is behind admission, but for those that the product made public: a request that was not admitted reaches
/// none.
pub async fn start(
    config: Config,
    product: Product,
    handlers: impl Into<Handlers>,
    service: service::Service,
) -> Result<DataPlane, BoxError> {
    // Both TLS users of the process share one provider; a second installation is refused, and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let node = Node::open(&config.node.state_dir)?;
    let control = Control::new(&config.control)?;
    let meter = service.telemetry.meter("data-plane");
    let strangers = Strangers::new(&config.strangers, &meter);
    let tokens = Tokens::new(&config.tokens, product.scopes, &meter)?;
    let audit = Audit::open(&config.node.state_dir.join("audit"), config.audit.spool_mib << 20, &meter)
        .map_err(|error| format!("cannot open the spool of audit events in `node.state_dir`: {error}"))?;
    let shipping = ship(audit.clone(), control.clone(), node.id, service.lifecycle.drained(), meter.clone());
    service.lifecycle.spawn("audit", shipping);
    let routes = Routes::new(control.clone(), config.pools.max_routes, strangers.clone(), &meter);
    let pools = Pools::new(KeyRing::new(&config.seal.tenants)?, node.holder, &config.pools, &meter);

    service.lifecycle.spawn("pools", pools.clone().reap(service.lifecycle.drained()));
    service.lifecycle.spawn("resting connections", pools.clone().rest(service.lifecycle.drained()));

    let limits = Limits::new(system_clock(), node.id.to_string(), &config.redis, &meter)?;
    service.lifecycle.spawn("limits", limits.clone().keep_link(service.lifecycle.drained()));

    let watched = routes.clone();
    service.health.register("staleness", move || {
        let is_stale = watched.is_stale();
        async move { if is_stale { Err("the control plane was not heard for too long".to_owned()) } else { Ok(()) } }
    });
    let feed = service.health.flag("feed", "the control plane was not heard yet");
    let (key_uses, every) = (KeyUsesToTell::default(), Duration::from_secs(config.node.tell_uses_seconds.get().into()));
    let telling = tell(key_uses.clone(), control.clone(), every, service.lifecycle.drained(), meter.clone());
    service.lifecycle.spawn("key-uses", telling);
    let following =
        follow(node, routes.clone(), pools.clone(), limits.clone(), feed, service.lifecycle.drained(), meter);
    service.lifecycle.spawn("feed", following);

    let plane = Plane::new(Parts {
        routes,
        pools,
        tokens,
        strangers,
        key_uses,
        audit,
        limits,
        naming: Naming::new(&config.names.base_domain, product.mount),
        product: Arc::new(product),
    });
    Ok(DataPlane::new(plane, handlers.into(), control)?)
}

/// A running data plane's API: the product behind admission, and its description beside it.
#[derive(Clone)]
pub struct DataPlane {
    plane: Plane,
    product: Router,
    pages: Router,
}

impl DataPlane {
    /// A session for work that no request asked for, such as a nightly report: the one door besides a request, and it leads
    /// through the same walk. Whoever asks must have been told the tenant by somebody who may know it; `purpose` names the
    /// work in what is written down.
    pub async fn session_for(&self, tenant: TenantId, purpose: &str) -> Result<TenantSession, Problem> {
        session_for(&self.plane, tenant, purpose).await
    }

    fn new(plane: Plane, handlers: Handlers, control: Control) -> Result<Self, serde_json::Error> {
        let (admitted, mut below) = handlers.admitted.merge(audit::routes(control)).split_for_parts();
        let (public, open) = handlers.public.split_for_parts();
        below.merge(needing_nothing(open));
        let info = Info::new(plane.product.name, env!("CARGO_PKG_VERSION"));
        let mut description = OpenApi::new(info, Paths::new()).nest(plane.product.mount, below);
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        description.components.get_or_insert_default().add_security_scheme("credential", scheme);
        description.security = Some(vec![SecurityRequirement::new("credential", [""; 0])]);
        let admitted = admitted.route_layer(AdmissionLayer(plane.clone(), Door::Admitted));
        let mut product = admitted;
        // axum refuses a layer around no routes, and few products have public ones.
        if public.has_routes() {
            product = product.merge(public.route_layer(AdmissionLayer(plane.clone(), Door::Public)));
        }
        Ok(Self { plane, product, pages: name_endpoints(describe(Router::new(), &description)?) })
    }
}

impl std::fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataPlane").field("naming", &self.plane.naming).finish_non_exhaustive()
    }
}

/// Says of public calls that they need no credential.
fn needing_nothing(mut open: OpenApi) -> OpenApi {
    for item in open.paths.paths.values_mut() {
        let calls = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for call in calls.into_iter().flatten() {
            call.security = Some(Vec::new());
        }
    }
    open
}

/// The tenant's path segment and the mount are taken off before the product's routes are matched.
impl Service<Request> for DataPlane {
    type Response = Response;
    type Error = Infallible;
    type Future = RouteFuture<Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Routers always are.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.plane.naming.identify(request) {
            Ok(request) => self.product.call(request),
            Err(request) => self.pages.call(request),
        }
    }
}
