//! The data plane: serves the tenants' requests, each from its own tenant's database.
//!
//! A request is admitted step by step (identify, authenticate, authorize, limit, connect), and only what was admitted gets
//! a [`TenantSession`], the one way to a database. What a node knows, it serves without the control plane.
//!
//! A product is its handlers and its declaration:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use data_plane::TenantSession;
//! use sea_orm::{ConnectionTrait, Statement};
//! use service::{Problem, extract::Json};
//! use utoipa_axum::{router::OpenApiRouter, routes};
//!
//! /// Lists the tenant's notes.
//! #[utoipa::path(get, path = "/notes", responses((status = 200, body = Vec<String>)))]
//! async fn list(session: TenantSession) -> Result<Json<Vec<String>>, Problem> {
//!     let db = session.db();
//!     let query = Statement::from_string(db.get_database_backend(), "SELECT text FROM notes ORDER BY text LIMIT 100");
//!     let rows = db.query_all_raw(query).await?;
//!     let notes = rows.iter().map(|row| row.try_get("", "text")).collect::<Result<_, _>>()?;
//!     Ok(Json(notes))
//! }
//!
//! fn main() -> ExitCode {
//!     service::run("notes-data-plane", async |config: data_plane::Config, service| {
//!         let product = tenancy::Product {
//!             name: "Notes",
//!             mount: "/api",
//!             schema_version: 1,
//!             scopes: &["notes:read"],
//!             config_keys: Vec::new(),
//!         };
//!         let handlers = OpenApiRouter::new().routes(routes!(list));
//!         data_plane::start(config, product, handlers, service).await
//!     })
//! }
//! ```

mod admission;
mod audit;
mod config;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handlers;
mod key_uses;
mod limits;
mod node;
mod plane;
mod pools;
mod routes;
mod session;
mod start;
mod strangers;
mod tokens;
mod uses;

#[cfg(feature = "measure")]
#[doc(hidden)]
pub use admission::measure::Measured;
pub use config::Config;
pub use handlers::Handlers;
pub use session::{ConfigView, Principal, PublicSession, Scope, Scoped, TenantDb, TenantSession};
pub use start::{DataPlane, start};
