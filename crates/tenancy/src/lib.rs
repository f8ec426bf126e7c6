//! The language that both planes share: who a tenant is, what it may do, and what a data plane needs to know of it.
//!
//! Nothing here talks to a network, a disk or a clock: times and randomness come in as arguments, so every rule can be
//! tested by itself. No type that holds a secret has a `Display`, and its `Debug` prints nothing of it.

pub mod api_key;
pub mod audit;
pub mod feed;
pub mod id;
pub mod issuer;
pub mod plan;
pub mod product;
pub mod route;
pub mod seal;
pub mod share;
pub mod slug;
pub mod stamp;
pub mod status;

pub use api_key::{ApiKey, KeyDigest, KeyId};
pub use id::TenantId;
pub use issuer::Issuer;
pub use plan::{Plan, TenantLimits};
pub use product::Product;
pub use route::Route;
pub use slug::Slug;
pub use status::Status;
