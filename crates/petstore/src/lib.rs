//! The pet store: Freehold's reference product, built as any product is.
//!
//! Its handlers say what a pet store does, and nothing of tenants: each gets a session, and with it its tenant's database.

mod about;
mod me;
mod pets;
mod product;

use data_plane::Handlers;
use utoipa_axum::{router::OpenApiRouter, routes};

pub use product::{Schema, product};

/// The handlers, below the product's mount.
pub fn handlers() -> Handlers {
    let admitted = OpenApiRouter::new()
        .routes(routes!(pets::list::list, pets::create::create))
        .routes(routes!(pets::show::show, pets::update::update, pets::delete::delete))
        .routes(routes!(me::me));
    Handlers::new(admitted).with_public(OpenApiRouter::new().routes(routes!(about::about)))
}
