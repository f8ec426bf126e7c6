//! The control plane's API: a table of contents. Each endpoint is in the room of its noun.

mod audit;
mod auth;
mod config;
mod doctor;
mod domains;
mod epoch;
mod feed;
mod issuers;
mod keys;
mod nodes;
mod once;
mod operations;
mod operators;
mod page;
mod plans;
mod precondition;
mod rewrap;
mod rollouts;
pub(crate) mod servers;
mod tenants;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use http::Method;
use service::docs::describe;
use service::layers::name_endpoints;
use utoipa::OpenApi;
use utoipa::openapi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa_axum::{router::OpenApiRouter, routes};

use auth::role::{Audience, Role, audience};

pub(crate) use auth::Tokens;

use crate::plane::Plane;

/// What handlers see.
#[derive(Clone)]
pub(crate) struct Api {
    plane: Plane,
    tokens: Arc<Tokens>,
}

#[derive(OpenApi)]
#[openapi(
    info(title = "Freehold control plane", description = "Tenants, their databases and everything about them."),
    security(("operator" = [])),
    components(schemas(service::problem::ProblemBody))
)]
struct Description;

/// All routes, with their description at `/openapi.json` and `/docs`.
pub(crate) fn router(plane: Plane, tokens: Tokens) -> Result<Router, serde_json::Error> {
    let api = Api { plane, tokens: Arc::new(tokens) };
    let (routes, mut description) = described().split_for_parts();
    if let Some(components) = description.components.as_mut() {
        for token in ["operator", "node"] {
            components.add_security_scheme(token, SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
        }
    }
    name_roles(&mut description);
    Ok(name_endpoints(describe(
        routes.route_layer(from_fn_with_state(api.clone(), auth::admit)).with_state(api),
        &description,
    )?))
}

/// Says of each call for whom it is.
fn name_roles(description: &mut openapi::OpenApi) {
    for (path, item) in &mut description.paths.paths {
        let calls = [
            (Method::GET, &mut item.get),
            (Method::PUT, &mut item.put),
            (Method::POST, &mut item.post),
            (Method::DELETE, &mut item.delete),
            (Method::PATCH, &mut item.patch),
        ];
        for (method, call) in calls {
            let Some(call) = call else { continue };
            let node = SecurityRequirement::new("node", [""; 0]);
            let operator = |role: Role| SecurityRequirement::new("operator", [role.as_str()]);
            call.security = Some(match audience(&method, path) {
                Audience::Nodes => vec![node],
                Audience::Operators(role) => vec![operator(role)],
                Audience::Everybody(role) => vec![operator(role), node],
            });
        }
    }
}

fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(tenants::create::create, tenants::list::list))
        .routes(routes!(tenants::show::show, tenants::update::update, tenants::delete::delete))
        .routes(routes!(tenants::status::suspend))
        .routes(routes!(tenants::status::resume))
        .routes(routes!(tenants::delete::restore))
        .routes(routes!(tenants::rotate::rotate))
        .routes(routes!(tenants::reconnect::reconnect))
        .routes(routes!(config::declared))
        .routes(routes!(config::list))
        .routes(routes!(config::show, config::set, config::unset))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::show, keys::revoke))
        .routes(routes!(issuers::list))
        .routes(routes!(issuers::show, issuers::set, issuers::remove))
        .routes(routes!(issuers::revoke_tokens))
        .routes(routes!(domains::list, domains::create::create))
        .routes(routes!(domains::remove))
        .routes(routes!(domains::prove::prove))
        .routes(routes!(operations::list))
        .routes(routes!(operations::show))
        .routes(routes!(operations::retry))
        .routes(routes!(servers::list, servers::create))
        .routes(routes!(servers::show, servers::update::update))
        .routes(routes!(servers::rotate::rotate_admin))
        .routes(routes!(rollouts::plan::fleet))
        .routes(routes!(rollouts::verify::verify))
        .routes(routes!(rollouts::list, rollouts::start::start))
        .routes(routes!(rollouts::plan::plan))
        .routes(routes!(rollouts::rehearse::rehearse))
        .routes(routes!(rollouts::show))
        .routes(routes!(rollouts::steer::pause))
        .routes(routes!(rollouts::steer::resume))
        .routes(routes!(rollouts::steer::abort))
        .routes(routes!(rollouts::steer::retry))
        .routes(routes!(rollouts::targets::targets))
        .routes(routes!(plans::list))
        .routes(routes!(plans::show, plans::put))
        .routes(routes!(rewrap::rewrap))
        .routes(routes!(operators::list, operators::create))
        .routes(routes!(operators::revoke))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::forget))
        .routes(routes!(epoch::begin))
        .routes(routes!(doctor::examine))
        .routes(routes!(feed::routes))
        .routes(routes!(feed::follow))
        .routes(routes!(feed::key_uses))
        .routes(routes!(audit::list))
        .routes(routes!(audit::checkpoints))
        .routes(routes!(audit::keys))
        .routes(routes!(audit::nodes::take))
        .routes(routes!(audit::nodes::trail))
}
