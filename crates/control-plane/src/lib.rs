//! The control plane: the registry of tenants, its API, provisioning, the engines that work the servers.
//!
//! It imports no data plane and no product; a product brings its declaration and its [`TenantSchema`].

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
mod start;

pub use config::Config;
pub use schema::{NewTenant, TenantSchema};
pub use start::start;
