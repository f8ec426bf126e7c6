//! Addresses of servers: which of a server's addresses, in the order that it had them, the URLs of a database name.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null};

use crate::index;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0021_addresses"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // One at a time: SQLite adds no two columns at once.
        let columns = [
            ("servers", big_integer("address_number").default(1).to_owned()),
            ("databases", big_integer("address_number").default(1).to_owned()),
            ("databases", big_integer_null("next_address_number")),
        ];
        for (name, column) in columns {
            manager.alter_table(Table::alter().table(name).add_column(column).to_owned()).await?;
        }
        manager.create_index(index("databases_address", "databases", &["server_id", "address_number"])).await
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
