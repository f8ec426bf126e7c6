//! Every tenant's database, step by step: the pet store's schema, and what a new one is filled with.
//!
//! The list is append-only: a database's schema version is how many of its migrations it has.

mod m0001_pets;
mod m0002_microchip;
mod m0003_microchip_index;
mod seed;

pub use sea_orm_migration::MigrationTrait;

pub use seed::seed;

/// The migrations, in their order.
pub fn migrations() -> Vec<Box<dyn MigrationTrait>> {
    vec![
        Box::new(m0001_pets::Migration),
        Box::new(m0002_microchip::Migration),
        Box::new(m0003_microchip_index::Migration),
    ]
}
