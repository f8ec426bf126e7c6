//! The audit trail: records in chains, how far each chain has come, signed checkpoints, and what came from which spool.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, string, string_null, text, timestamp_with_time_zone, uuid, uuid_null};

use crate::{index, table};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0012_audit"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

fn tables() -> Vec<TableCreateStatement> {
    vec![
        // The payload is kept as the text that its digest goes over; the columns before it are for finding it.
        table("audit")
            .col(string("chain"))
            .col(big_integer("seq"))
            .col(uuid("id").unique_key())
            .col(timestamp_with_time_zone("at"))
            .col(string("action"))
            .col(string("actor"))
            .col(uuid_null("tenant_id"))
            .col(uuid_null("target_id"))
            .col(string_null("request_id"))
            .col(text("payload"))
            .col(string("previous"))
            .col(string("digest"))
            .col(string("hash"))
            .primary_key(Index::create().col("chain").col("seq"))
            .to_owned(),
        // `signed` is the number of the newest record that a checkpoint vouches for.
        table("audit_chains")
            .col(string("chain").primary_key())
            .col(big_integer("seq"))
            .col(string("hash"))
            .col(big_integer("signed").default(0).to_owned())
            .to_owned(),
        table("audit_checkpoints")
            .col(string("chain"))
            .col(big_integer("seq"))
            .col(string("hash"))
            .col(timestamp_with_time_zone("at"))
            .col(string("key"))
            .col(string("signature"))
            .primary_key(Index::create().col("chain").col("seq"))
            .to_owned(),
        table("audit_spools")
            .col(uuid("spool").primary_key())
            .col(uuid("node_id"))
            .col(big_integer("taken"))
            .col(timestamp_with_time_zone("heard_at"))
            .to_owned(),
    ]
}

fn indexes() -> Vec<IndexCreateStatement> {
    vec![
        index("audit_tenant", "audit", &["tenant_id", "id"]),
        index("audit_target", "audit", &["target_id", "id"]),
        index("audit_action", "audit", &["action", "id"]),
        index("audit_actor", "audit", &["actor", "id"]),
        index("audit_request", "audit", &["request_id"]),
        index("audit_chains_unsigned", "audit_chains", &["chain"])
            .and_where(Expr::col("seq").gt(Expr::col("signed")))
            .to_owned(),
    ]
}
