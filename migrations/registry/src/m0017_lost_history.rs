//! What each node was told of the registry's history, and what of it the registry turned out to lack.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, big_integer_null, uuid_null};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0017_lost_history"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let columns = [
            // The newest revision that a node was told of, and the epoch that it is of.
            ("nodes", big_integer("told").default(0).to_owned()),
            ("nodes", uuid_null("told_epoch")),
            // The first and the last revision that the registry lacks, and the node that was given the last.
            ("history", big_integer_null("lost_from")),
            ("history", big_integer_null("lost_to")),
            ("history", uuid_null("lost_node")),
        ];
        // SQLite adds one column at a time.
        for (table, column) in columns {
            manager.alter_table(Table::alter().table(table).add_column(column).to_owned()).await?;
        }
        Ok(())
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
