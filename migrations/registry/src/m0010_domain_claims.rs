//! Custom hosts that somebody claims and has not proven yet. Several tenants may claim one.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{string, timestamp_with_time_zone, uuid};

use crate::table;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0010_domain_claims"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let claims = table("domain_claims")
            .col(uuid("tenant_id"))
            .col(string("host"))
            .col(string("token"))
            .col(timestamp_with_time_zone("created_at"))
            .primary_key(Index::create().col("tenant_id").col("host"))
            .foreign_key(ForeignKey::create().from("domain_claims", "tenant_id").to("tenants", "id"))
            .to_owned();
        manager.create_table(claims).await
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
