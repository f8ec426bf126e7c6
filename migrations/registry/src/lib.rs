//! The registry: the control plane's own database, step by step, on Postgres and on SQLite.
//!
//! The list is append-only. Nothing here knows what the rows mean; the control plane does.

use sea_orm_migration::prelude::*;

mod m0001_foundation;
mod m0002_life;
mod m0003_held;
mod m0004_placed;
mod m0007_operators;
mod m0008_issuers;
mod m0009_of_servers;
mod m0010_domain_claims;
mod m0011_key_uses;
mod m0012_audit;
mod m0013_limits;
mod m0014_rollouts;
mod m0015_canary_health;
mod m0016_slug_since;
mod m0017_lost_history;
mod m0018_shares;
mod m0019_anchors;
mod m0020_reconnects;
mod m0021_addresses;
mod m0022_data_address;

/// The registry's migrations.
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_foundation::Migration),
            Box::new(m0002_life::Migration),
            Box::new(m0003_held::Migration),
            Box::new(m0004_placed::Migration),
            Box::new(m0007_operators::Migration),
            Box::new(m0008_issuers::Migration),
            Box::new(m0009_of_servers::Migration),
            Box::new(m0010_domain_claims::Migration),
            Box::new(m0011_key_uses::Migration),
            Box::new(m0012_audit::Migration),
            Box::new(m0013_limits::Migration),
            Box::new(m0014_rollouts::Migration),
            Box::new(m0015_canary_health::Migration),
            Box::new(m0016_slug_since::Migration),
            Box::new(m0017_lost_history::Migration),
            Box::new(m0018_shares::Migration),
            Box::new(m0019_anchors::Migration),
            Box::new(m0020_reconnects::Migration),
            Box::new(m0021_addresses::Migration),
            Box::new(m0022_data_address::Migration),
        ]
    }
}

/// A table to be made.
fn table(name: &'static str) -> TableCreateStatement {
    Table::create().table(name).to_owned()
}

/// An index to be made.
fn index(name: &'static str, table: &'static str, columns: &[&'static str]) -> IndexCreateStatement {
    let mut index = Index::create().name(name).table(table).to_owned();
    for column in columns {
        index.col(*column);
    }
    index
}
