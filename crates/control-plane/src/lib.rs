//! The control plane: the registry of tenants, its API, provisioning, the engines that work the servers.
//!
//! It imports no data plane and no product; a product brings its declaration and its [`TenantSchema`]:
//!
//! ```no_run
#![doc = include_str!("../../../tests/notes/control_plane.rs")]
//! ```
//!
//! Beside `control-plane`, `service` and `tenancy` this needs of others `async-trait`, `sea-orm` and `sea-orm-migration`. Its
//! handlers are the data plane's: the documentation of `data-plane` shows them.

mod api;
mod audit;
mod config;
mod doctor;
mod engine;
mod fleet;
mod mail;
mod plane;
mod proof;
mod provision;
mod registry;
mod rewrap;
mod schema;
mod shares;
mod start;

pub use config::Config;
pub use schema::{NewTenant, TenantSchema};
pub use start::start;
