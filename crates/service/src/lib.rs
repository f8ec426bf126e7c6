//! What any service needs, and knows no tenant: configuration, problems (errors), extractors,
//! the layers around every request, telemetry, lifecycle, health and the ops listener.
//!
//! Nothing here knows a tenant, a database's schema or a product; the planes bring those.

pub mod config;
pub mod docs;
pub mod extract;
pub mod health;
pub mod layers;
pub mod lifecycle;
pub mod ops;
pub mod pool;
pub mod problem;
mod run;
pub mod system;
pub mod telemetry;

pub use problem::Problem;
pub use run::{Service, run};
