//! An API's description of itself: `/openapi.json` for programs, `/docs` for people. Both work without a network.

use axum::{Router, routing::get};
use bytes::Bytes;
use http::header;
use serde_json::{Map, Value, json};
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::Problem;

const PROBLEM: &str = "#/components/schemas/Problem";

/// Adds an API's description to its routes. Every problem in it is said to come as one, and to be possible everywhere: a
/// missing credential, a body that is too large, a database that is away.
pub fn describe(router: Router, description: &OpenApi) -> Result<Router, serde_json::Error> {
    let mut description = serde_json::to_value(description)?;
    let paths = description.get_mut("paths").and_then(Value::as_object_mut);
    for operation in
        paths.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut).flat_map(Map::values_mut)
    {
        let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { continue };
        for response in responses.values_mut() {
            let Some(content) = response.get_mut("content").and_then(Value::as_object_mut) else { continue };
            if content.get("application/json").is_some_and(|json| json["schema"]["$ref"] == PROBLEM)
                && let Some(problem) = content.remove("application/json")
            {
                content.insert(Problem::MEDIA_TYPE.to_owned(), problem);
            }
        }
        let any = json!({ "description": "Any other problem", "content": { Problem::MEDIA_TYPE: { "schema": { "$ref": PROBLEM } } } });
        responses.insert("default".to_owned(), any);
    }
    // Written once: routers are cloned for each connection, and what they hold with them.
    let document = Bytes::from(serde_json::to_vec(&description)?);
    let show = async move || ([(header::CONTENT_TYPE, "application/json")], document);
    let pages = SwaggerUi::new("/docs").config(Config::from("/openapi.json"));
    Ok(router.route("/openapi.json", get(show)).merge(pages))
}
