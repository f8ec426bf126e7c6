//! Limits of single clients in plans, and of single tenants beside their plans.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{integer_null, json_null};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0013_limits"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One at a time: SQLite adds no two columns at once.
        for column in ["client_requests", "client_burst"] {
            manager.alter_table(Table::alter().table("plans").add_column(integer_null(column)).to_owned()).await?;
        }
        manager.alter_table(Table::alter().table("tenants").add_column(json_null("limits")).to_owned()).await
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
