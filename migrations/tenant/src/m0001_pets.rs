//! Pets, and the users who look after them.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{string, string_null, timestamp_with_time_zone, timestamp_with_time_zone_null, uuid};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0001_pets"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let users = Table::create()
            .table("users")
            .col(uuid("id").primary_key())
            .col(string("email").unique_key())
            .col(string("role"))
            .col(timestamp_with_time_zone("created_at"))
            .to_owned();
        let pets = Table::create()
            .table("pets")
            .col(uuid("id").primary_key())
            .col(string("name"))
            .col(string("species"))
            .col(string_null("breed"))
            .col(timestamp_with_time_zone("created_at"))
            .col(timestamp_with_time_zone_null("deleted_at"))
            .to_owned();
        manager.create_table(users).await?;
        manager.create_table(pets).await?;
        // A list is read in the order of ids, which is that of creation.
        let by_species = Index::create().name("pets_species").table("pets").col("species").col("id").to_owned();
        manager.create_index(by_species).await
    }
}
