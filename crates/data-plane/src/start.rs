//! From a configuration to a running data plane: identity, feed, admission, the product's handlers.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware;
use axum::response::IntoResponse as _;
use http::StatusCode;
use service::Service;
use service::problem::BoxError;
use tenancy::Product;
use tenancy::seal::KeyRing;
use tower::ServiceExt as _;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Info, OpenApi, Paths};
use utoipa_axum::router::OpenApiRouter;

use crate::admission::{self, identify::Naming};
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
    service: Service,
) -> Result<Router, BoxError> {
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
    Ok(router(plane, handlers)?)
}

fn router(plane: Plane, handlers: OpenApiRouter) -> Result<Router, serde_json::Error> {
    let (mount, name) = (plane.product.mount, plane.product.name);
    let (routes, below) = handlers.split_for_parts();
    let mut description = OpenApi::new(Info::new(name, env!("CARGO_PKG_VERSION")), Paths::new()).nest(mount, below);
    let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    description.components.get_or_insert_default().add_security_scheme("credential", scheme);
    description.security = Some(vec![SecurityRequirement::new("credential", [""; 0])]);

    let naming = plane.naming.clone();
    let admitted = routes.route_layer(middleware::from_fn_with_state(plane, admission::admit));
    // The tenant's path segment and the mount are taken off before the product's routes are matched: nested routers would
    // take the mount off again for each request, at more cost.
    let product = Router::new().fallback(async move |request: Request| match naming.identify(request) {
        Some(request) => {
            let Ok(response) = admitted.oneshot(request).await;
            response
        }
        None => StatusCode::NOT_FOUND.into_response(),
    });
    service::docs::describe(product, &description)
}
