//! Tenants' own issuers of tokens, and from when on their tokens count.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{json, string, timestamp_with_time_zone, timestamp_with_time_zone_null, uuid};

use crate::{index, table};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0008_issuers"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let issuers = table("issuers")
            .col(uuid("tenant_id"))
            .col(string("name"))
            .col(string("issuer"))
            .col(json("described"))
            .col(timestamp_with_time_zone("created_at"))
            .primary_key(Index::create().col("tenant_id").col("name"))
            .foreign_key(ForeignKey::create().from("issuers", "tenant_id").to("tenants", "id"))
            .to_owned();
        manager.create_table(issuers).await?;
        manager.create_index(index("issuers_issuer", "issuers", &["issuer"]).unique().to_owned()).await?;
        let from = Table::alter().table("tenants").add_column(timestamp_with_time_zone_null("tokens_from")).to_owned();
        manager.alter_table(from).await
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
