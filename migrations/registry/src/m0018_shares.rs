//! Shares of servers' connections: which process of which node may have how many, and may still have.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, boolean, integer, timestamp_with_time_zone, uuid};

use crate::{index, table};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0018_shares"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let shares = table("shares")
            .col(uuid("server_id"))
            .col(uuid("holder"))
            .col(uuid("node_id"))
            .col(integer("share"))
            .col(integer("held"))
            .col(big_integer("number"))
            .col(integer("wanted"))
            .col(boolean("is_leaving"))
            .col(timestamp_with_time_zone("heard_at"))
            .primary_key(Index::create().col("server_id").col("holder"))
            .to_owned();
        manager.create_table(shares).await?;
        manager.create_index(index("shares_holder", "shares", &["holder"])).await?;
        // One at a time: SQLite adds no two columns at once.
        let columns = [
            ("servers", integer("connect_rate").default(200).to_owned()),
            ("servers", integer("control_reserve").default(0).to_owned()),
            ("history", big_integer("shares").default(0).to_owned()),
        ];
        for (name, column) in columns {
            manager.alter_table(Table::alter().table(name).add_column(column).to_owned()).await?;
        }
        Ok(())
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
