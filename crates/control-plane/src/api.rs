//! The control plane's API: a table of contents. Each endpoint is in the room of its noun.

mod auth;
mod config;
mod doctor;
mod domains;
mod epoch;
mod feed;
mod keys;
mod nodes;
mod once;
mod operations;
mod page;
mod plans;
mod precondition;
mod rewrap;
pub(crate) mod servers;
mod tenants;

use std::sync::Arc;

use axum::Router;
use service::docs::describe;
use service::layers::name_endpoints;
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa_axum::{router::OpenApiRouter, routes};

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
    Ok(name_endpoints(describe(routes.with_state(api), &description)?))
}

fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(tenants::create::create, tenants::list::list))
        .routes(routes!(tenants::show::show, tenants::update::update, tenants::delete::delete))
        .routes(routes!(tenants::status::suspend))
        .routes(routes!(tenants::status::resume))
        .routes(routes!(tenants::delete::restore))
        .routes(routes!(tenants::rotate::rotate))
        .routes(routes!(config::list))
        .routes(routes!(config::show, config::set, config::unset))
        .routes(routes!(keys::list, keys::create))
        .routes(routes!(keys::show, keys::revoke))
        .routes(routes!(domains::list, domains::create))
        .routes(routes!(domains::remove))
        .routes(routes!(operations::list))
        .routes(routes!(operations::show))
        .routes(routes!(operations::retry))
        .routes(routes!(servers::list, servers::create))
        .routes(routes!(servers::show, servers::update))
        .routes(routes!(servers::rotate::rotate_admin))
        .routes(routes!(plans::list))
        .routes(routes!(plans::show, plans::put))
        .routes(routes!(rewrap::rewrap))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::forget))
        .routes(routes!(epoch::begin))
        .routes(routes!(doctor::examine))
        .routes(routes!(feed::routes))
        .routes(routes!(feed::follow))
}
