//! The first shape of the registry: history, plans, servers, tenants and what belongs to them, operations, nodes.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, integer, integer_null, json, string, string_null, timestamp_with_time_zone,
    timestamp_with_time_zone_null, uuid, uuid_null,
};

use crate::{index, table};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0001_foundation"
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
        // One row: the identity of the registry's history, its newest revision, the fleet's schema version.
        table("history")
            .col(integer("id").primary_key())
            .col(uuid("epoch"))
            .col(big_integer("head"))
            .col(integer("schema_version"))
            .to_owned(),
        table("plans")
            .col(string("name").primary_key())
            .col(integer_null("requests"))
            .col(integer("window_seconds"))
            .col(integer_null("burst"))
            .col(integer("connections"))
            .col(integer("concurrency"))
            .to_owned(),
        table("servers")
            .col(uuid("id").primary_key())
            .col(string("name").unique_key())
            .col(string("engine"))
            .col(string("region"))
            .col(string("state"))
            .col(integer("capacity"))
            .col(integer("connection_budget"))
            .col(string("sealed_admin_url"))
            .col(big_integer("generation"))
            .col(timestamp_with_time_zone("created_at"))
            .to_owned(),
        table("tenants")
            .col(uuid("id").primary_key())
            .col(string("slug"))
            .col(string("name"))
            .col(string("status"))
            .col(string("plan"))
            .col(string_null("region"))
            .col(string_null("admin_email"))
            .col(uuid_null("server_id"))
            .col(integer("schema_version"))
            .col(big_integer("generation"))
            .col(string_null("sealed_url"))
            .col(big_integer("revision"))
            .col(big_integer("version"))
            .col(string_null("status_before"))
            .col(timestamp_with_time_zone("created_at"))
            .col(timestamp_with_time_zone("updated_at"))
            .col(timestamp_with_time_zone_null("delete_after"))
            .foreign_key(ForeignKey::create().from("tenants", "plan").to("plans", "name"))
            .foreign_key(ForeignKey::create().from("tenants", "server_id").to("servers", "id"))
            .to_owned(),
        owned("domains").col(string("host").primary_key()).to_owned(),
        owned("keys")
            .col(string("id").primary_key())
            .col(string("name"))
            .col(string("digest"))
            .col(json("scopes"))
            .col(timestamp_with_time_zone_null("expires_at"))
            .to_owned(),
        owned("config")
            .col(string("key"))
            .col(json("value"))
            .primary_key(Index::create().col("tenant_id").col("key"))
            .to_owned(),
        table("databases")
            .col(string("name").primary_key())
            .col(uuid("server_id"))
            .col(uuid("tenant_id").unique_key())
            .col(string("slot"))
            .col(big_integer("generation"))
            .col(string("sealed_url"))
            .col(timestamp_with_time_zone("created_at"))
            .foreign_key(ForeignKey::create().from("databases", "server_id").to("servers", "id"))
            .foreign_key(ForeignKey::create().from("databases", "tenant_id").to("tenants", "id"))
            .to_owned(),
        table("operations")
            .col(uuid("id").primary_key())
            .col(string("kind"))
            .col(uuid("tenant_id"))
            .col(string("state"))
            .col(string_null("error"))
            .col(uuid_null("lease_holder"))
            .col(timestamp_with_time_zone_null("lease_until"))
            .col(big_integer("fence"))
            .col(timestamp_with_time_zone("run_after"))
            .col(timestamp_with_time_zone("created_at"))
            .col(timestamp_with_time_zone_null("finished_at"))
            .foreign_key(ForeignKey::create().from("operations", "tenant_id").to("tenants", "id"))
            .to_owned(),
        table("operation_steps")
            .col(uuid("operation_id"))
            .col(integer("position"))
            .col(string("name"))
            .col(string("state"))
            .col(integer("attempts"))
            .col(string_null("error"))
            .primary_key(Index::create().col("operation_id").col("position"))
            .foreign_key(ForeignKey::create().from("operation_steps", "operation_id").to("operations", "id"))
            .to_owned(),
        table("nodes")
            .col(uuid("id").primary_key())
            .col(big_integer("applied"))
            .col(timestamp_with_time_zone("first_seen"))
            .col(timestamp_with_time_zone("last_seen"))
            .to_owned(),
        table("idempotency")
            .col(string("scope").primary_key())
            .col(uuid("claim"))
            .col(string("body_digest"))
            .col(string_null("sealed_answer"))
            .col(timestamp_with_time_zone("created_at"))
            .to_owned(),
    ]
}

/// A table of things that belong to a tenant.
fn owned(name: &'static str) -> TableCreateStatement {
    Table::create()
        .table(name)
        .col(uuid("tenant_id"))
        .col(timestamp_with_time_zone("created_at"))
        .foreign_key(ForeignKey::create().from(name, "tenant_id").to("tenants", "id"))
        .to_owned()
}

fn indexes() -> Vec<IndexCreateStatement> {
    vec![
        // A deleted tenant leaves its slug to others.
        index("tenants_slug", "tenants", &["slug"]).unique().and_where(Expr::col("status").ne("deleted")).to_owned(),
        index("tenants_revision", "tenants", &["revision"]),
        index("tenants_server", "tenants", &["server_id"]),
        index("tenants_plan", "tenants", &["plan"]),
        index("domains_tenant", "domains", &["tenant_id"]),
        index("keys_tenant", "keys", &["tenant_id"]),
        index("operations_state", "operations", &["state", "run_after"]),
        index("operations_tenant", "operations", &["tenant_id"]),
    ]
}
