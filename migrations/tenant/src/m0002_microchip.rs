//! The number of a pet's microchip: expand, the first half of expand and contract. Programs that do not know the column go on.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::string_null;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0002_microchip"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Nullable and without a default: a change of the catalog alone, whatever the table holds. The index is another
        // migration, since it must not be made in the transaction that holds the table.
        manager.alter_table(Table::alter().table("pets").add_column(string_null("microchip_id")).to_owned()).await
    }

    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.alter_table(Table::alter().table("pets").drop_column("microchip_id").to_owned()).await
    }
}
