//! The data plane of a product that keeps notes: its handlers, and its declaration.

use std::process::ExitCode;

use data_plane::TenantSession;
use sea_orm::{ConnectionTrait, Statement};
use service::{Problem, extract::Json};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Lists the tenant's notes.
#[utoipa::path(get, path = "/notes", responses((status = 200, body = Vec<String>)))]
async fn list(session: TenantSession) -> Result<Json<Vec<String>>, Problem> {
    let db = session.db();
    let query = Statement::from_string(db.get_database_backend(), "SELECT text FROM notes ORDER BY text LIMIT 100");
    let rows = db.query_all_raw(query).await?;
    let notes = rows.iter().map(|row| row.try_get("", "text")).collect::<Result<_, _>>()?;
    Ok(Json(notes))
}

fn main() -> ExitCode {
    service::run("notes-data-plane", async |config: data_plane::Config, service| {
        // The same as the control plane's.
        let product = tenancy::Product {
            name: "Notes",
            mount: "/api",
            schema_version: 1,
            scopes: &["notes:read"],
            config_keys: Vec::new(),
        };
        let handlers = OpenApiRouter::new().routes(routes!(list));
        data_plane::start(config, product, handlers, service).await
    })
}
