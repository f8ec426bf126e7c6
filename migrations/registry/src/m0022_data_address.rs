//! Addresses of servers for data planes, where these reach a server another way than its admin does.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::string_null;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0022_data_address"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = string_null("data_address");
        manager.alter_table(Table::alter().table("servers").add_column(column).to_owned()).await
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
