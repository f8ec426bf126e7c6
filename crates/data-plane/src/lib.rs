//! The data plane: serves the tenants' requests, each from its own tenant's database.
//!
//! A request is admitted step by step (identify, authenticate, authorize, limit, connect), and only what was admitted gets
//! a [`TenantSession`], the one way to a database. What a node knows, it serves without the control plane.
//!
//! A product is its handlers and its declaration, here for the data plane; what the control plane is given is shown there.
//! Both are given the same declaration: put it into a crate that both import, once it is longer than this.
//!
//! ```no_run
#![doc = include_str!("../../../tests/notes/data_plane.rs")]
//! ```
//!
//! Beside `data-plane`, `service` and `tenancy` this needs of others `axum` (which the macro `routes!` names), `sea-orm`,
//! `utoipa` and `utoipa-axum`.

mod admission;
mod audit;
mod canaries;
mod config;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod handlers;
mod kept;
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
pub use session::{ConfigView, Principal, PublicSession, Scope, Scoped, TenantDb, TenantSession, TenantTransaction};
pub use start::{DataPlane, start};
