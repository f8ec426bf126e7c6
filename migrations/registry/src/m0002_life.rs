//! A tenant's whole life: templates and ready databases, rotation, mail to be sent, slugs held back, records of erasure.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer_null, boolean, integer, json, string, string_null, timestamp_with_time_zone,
    timestamp_with_time_zone_null, uuid, uuid_null,
};

use crate::{index, table};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0002_life"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, column) in columns() {
            // SQLite adds one column in a statement.
            manager.alter_table(Table::alter().table(table).add_column(column).to_owned()).await?;
        }
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

fn columns() -> Vec<(&'static str, ColumnDef)> {
    vec![
        // Begins the names of the registry's databases.
        ("history", string_null("mark")),
        // The login role that is made ready to take over, with the URL that goes with it.
        ("databases", string_null("next_slot")),
        ("databases", big_integer_null("next_generation")),
        ("databases", string_null("next_sealed_url")),
        // When the URL in use was made.
        ("databases", timestamp_with_time_zone_null("rotated_at")),
        ("databases", boolean("is_warm").default(false).to_owned()),
        // Databases that are kept ready.
        ("servers", integer("warm_target").default(0).to_owned()),
        // Waits for no data plane.
        ("operations", boolean("is_forced").default(false).to_owned()),
        // The revision that data planes are waited for to apply.
        ("operations", big_integer_null("awaited")),
        // What its reader should know of how it went.
        ("operations", string_null("note")),
        ("operations", string_null("requested_by")),
        // An admin's password that is made ready to take over.
        ("servers", string_null("next_sealed_admin_url")),
    ]
}

fn tables() -> Vec<TableCreateStatement> {
    vec![
        // One migrated database for each server and schema version, which the others are copies of.
        table("templates")
            .col(uuid("server_id"))
            .col(integer("schema_version"))
            .col(string("name").unique_key())
            .col(string("state"))
            .col(uuid_null("lease_holder"))
            .col(timestamp_with_time_zone_null("lease_until"))
            .col(timestamp_with_time_zone("created_at"))
            .primary_key(Index::create().col("server_id").col("schema_version"))
            .foreign_key(ForeignKey::create().from("templates", "server_id").to("servers", "id"))
            .to_owned(),
        // Databases that are ready for tenants to come. The URL is sealed for `id`.
        table("warm_databases")
            .col(string("name").primary_key())
            .col(uuid("id").unique_key())
            .col(uuid("server_id"))
            .col(integer("schema_version"))
            .col(string("state"))
            .col(string("sealed_url"))
            .col(uuid_null("lease_holder"))
            .col(timestamp_with_time_zone_null("lease_until"))
            .col(timestamp_with_time_zone("created_at"))
            .foreign_key(ForeignKey::create().from("warm_databases", "server_id").to("servers", "id"))
            .to_owned(),
        // Mail to be sent, written in the transaction of what it tells of.
        table("outbox")
            .col(uuid("id").primary_key())
            .col(uuid("tenant_id"))
            .col(string("kind"))
            .col(string("recipient"))
            .col(integer("attempts"))
            .col(string_null("error"))
            .col(timestamp_with_time_zone("run_after"))
            .col(uuid_null("lease_holder"))
            .col(timestamp_with_time_zone_null("lease_until"))
            .col(timestamp_with_time_zone("created_at"))
            .col(timestamp_with_time_zone_null("sent_at"))
            .foreign_key(ForeignKey::create().from("outbox", "tenant_id").to("tenants", "id"))
            .to_owned(),
        // Slugs of deleted tenants that nobody else may take yet.
        table("held_slugs")
            .col(string("slug").primary_key())
            .col(uuid("tenant_id"))
            .col(timestamp_with_time_zone("until"))
            .foreign_key(ForeignKey::create().from("held_slugs", "tenant_id").to("tenants", "id"))
            .to_owned(),
        // What was destroyed of a tenant, when, and by whose will.
        table("erasures")
            .col(uuid("tenant_id").primary_key())
            .col(string_null("requested_by"))
            .col(timestamp_with_time_zone("requested_at"))
            .col(timestamp_with_time_zone_null("erased_at"))
            .col(string_null("server"))
            .col(string_null("database"))
            .col(json("row_counts"))
            .foreign_key(ForeignKey::create().from("erasures", "tenant_id").to("tenants", "id"))
            .to_owned(),
    ]
}

fn indexes() -> Vec<IndexCreateStatement> {
    vec![
        // One operation at a time is at work for a tenant.
        index("operations_at_work", "operations", &["tenant_id"])
            .unique()
            .and_where(Expr::col("state").is_in(["running", "undoing"]))
            .to_owned(),
        index("warm_databases_claim", "warm_databases", &["server_id", "schema_version", "state"]),
        index("outbox_due", "outbox", &["sent_at", "run_after"]),
        index("held_slugs_until", "held_slugs", &["until"]),
        index("databases_rotated", "databases", &["rotated_at"]),
        index("idempotency_created", "idempotency", &["created_at"]),
    ]
}
