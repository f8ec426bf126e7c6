//! From a configuration to a running data plane: identity, feed, admission, the product's handlers.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use service::docs::describe;
use service::layers::name_endpoints;
use service::problem::BoxError;
use tenancy::Product;
use tenancy::seal::KeyRing;
use tower::Service;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Info, OpenApi, Paths};
use utoipa_axum::router::OpenApiRouter;

use crate::admission::{AdmissionLayer, identify::Naming};
use crate::config::Config;
use crate::node::Node;
use crate::plane::{Parts, Plane};
use crate::pools::Pools;
use crate::routes::{Control, Routes, follow};

/// Starts a data plane for a product, and answers its API. Paths of `handlers` are below the product's mount.
///
/// Every handler is behind admission: a request that was not admitted reaches none.
pub async fn start(
    config: Config,
    product: Product,
    handlers: OpenApiRouter,
    service: service::Service,
) -> Result<DataPlane, BoxError> {
    // Both TLS users of the process share one provider; a second installation is refused, and harmless.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let node = Node::open(&config.node.state_dir)?;
    let control = Control::new(&config.control)?;
    let meter = service.telemetry.meter("data-plane");
    let routes = Routes::new(control, config.pools.max_routes, &meter);
    let pools = Pools::new(KeyRing::new(&config.seal.tenants)?, &config.pools, &meter);

    let watched = routes.clone();
    service.health.register("staleness", move || {
        let is_stale = watched.is_stale();
        async move { if is_stale { Err("the control plane was not heard for too long".to_owned()) } else { Ok(()) } }
    });
    let feed = service.health.flag("feed", "the control plane was not heard yet");
    let following = follow(node, routes.clone(), pools.clone(), feed, service.lifecycle.drained(), meter);
    service.lifecycle.spawn("feed", following);

    let plane = Plane::new(Parts {
        routes,
        pools,
        naming: Naming::new(&config.names.base_domain, product.mount),
        product: Arc::new(product),
    });
    Ok(DataPlane::new(plane, handlers)?)
}

/// A running data plane's API: the product behind admission, and its description beside it.
#[derive(Clone, Debug)]
pub struct DataPlane {
    naming: Naming,
    product: Router,
    pages: Router,
}

impl DataPlane {
    fn new(plane: Plane, handlers: OpenApiRouter) -> Result<Self, serde_json::Error> {
        let naming = plane.naming.clone();
        let (routes, below) = handlers.split_for_parts();
        let info = Info::new(plane.product.name, env!("CARGO_PKG_VERSION"));
        let mut description = OpenApi::new(info, Paths::new()).nest(plane.product.mount, below);
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        description.components.get_or_insert_default().add_security_scheme("credential", scheme);
        description.security = Some(vec![SecurityRequirement::new("credential", [""; 0])]);
        let product = routes.route_layer(AdmissionLayer(plane));
        Ok(Self { naming, product, pages: name_endpoints(describe(Router::new(), &description)?) })
    }
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
        match self.naming.identify(request) {
            Ok(request) => self.product.call(request),
            Err(request) => self.pages.call(request),
        }
    }
}
