//! How often a tenant's connections were replaced, and when that was for the last time.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, timestamp_with_time_zone_null};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0020_reconnects"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One at a time: SQLite adds no two columns at once.
        let columns =
            [big_integer("reconnects").default(0).to_owned(), timestamp_with_time_zone_null("reconnected_at")];
        for column in columns {
            manager.alter_table(Table::alter().table("tenants").add_column(column).to_owned()).await?;
        }
        Ok(())
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
