//! Anchors: by which login role a data plane shows a server that it lives, and whether it still may.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, boolean, text_null, uuid_null};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0019_anchors"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let no = |name: &'static str| boolean(name).default(false).to_owned();
        // One at a time: SQLite adds no two columns at once.
        let columns = [
            uuid_null("anchor"),
            big_integer("anchor_number").default(0).to_owned(),
            text_null("sealed_anchor"),
            no("is_anchor_made"),
            no("is_anchored"),
            no("is_fenced"),
        ];
        for column in columns {
            manager.alter_table(Table::alter().table("shares").add_column(column).to_owned()).await?;
        }
        Ok(())
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
