//! Who may call the control plane: tokens with roles, by their digests.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{string, timestamp_with_time_zone, timestamp_with_time_zone_null};

use crate::table;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0007_operators"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let operators = table("operators")
            .col(string("id").primary_key())
            .col(string("name"))
            .col(string("role"))
            .col(string("digest"))
            .col(string("created_by"))
            .col(timestamp_with_time_zone("created_at"))
            .col(timestamp_with_time_zone_null("expires_at"))
            .col(timestamp_with_time_zone_null("revoked_at"))
            .to_owned();
        manager.create_table(operators).await
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
