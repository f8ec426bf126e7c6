//! An API's description of itself: `/openapi.json` for programs, `/docs` for people. Both work without a network.

use axum::{Router, routing::get};
use bytes::Bytes;
use http::header;
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Adds an API's description to its routes.
pub fn describe(router: Router, description: &OpenApi) -> Result<Router, serde_json::Error> {
    // Written once: routers are cloned for each connection, and what they hold with them.
    let document = Bytes::from(serde_json::to_vec(description)?);
    let show = async move || ([(header::CONTENT_TYPE, "application/json")], document);
    let pages = SwaggerUi::new("/docs").config(Config::from("/openapi.json"));
    Ok(router.route("/openapi.json", get(show)).merge(pages))
}
