//! Rollouts: fleet migrations, their waves, and one row for each tenant whose database is to be changed.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, boolean, integer, integer_null, json, string, string_null, timestamp_with_time_zone,
    timestamp_with_time_zone_null, uuid, uuid_null,
};

use crate::{index, table};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0014_rollouts"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            manager.create_table(table).await?;
        }
        // Whatever is asked of a rollout's targets is asked by their state: what comes next, what failed, what is left.
        let columns = ["rollout_id", "state", "wave", "tenant_id"];
        manager.create_index(index("rollout_targets_state", "rollout_targets", &columns)).await?;
        manager.create_index(index("rollouts_state", "rollouts", &["state"])).await?;
        manager.create_index(index("rollout_targets_holder", "rollout_targets", &["lease_holder"])).await?;
        // A tenant is in one open rollout at a time.
        let open = index("rollout_targets_open", "rollout_targets", &["tenant_id"])
            .unique()
            .and_where(Expr::col("state").is_in(["pending", "running"]))
            .to_owned();
        manager.create_index(open).await
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

fn tables() -> [TableCreateStatement; 3] {
    [
        table("rollouts")
            .col(uuid("id").primary_key())
            .col(integer("target_version"))
            .col(boolean("is_down"))
            .col(json("selection"))
            .col(json("settings"))
            .col(string("state"))
            .col(string_null("note"))
            .col(integer("wave"))
            .col(timestamp_with_time_zone_null("rest_until"))
            .col(boolean("is_awaited"))
            .col(boolean("has_moved_fleet"))
            .col(big_integer("already"))
            .col(string("requested_by"))
            .col(uuid("epoch"))
            .col(timestamp_with_time_zone("created_at"))
            .col(timestamp_with_time_zone_null("finished_at"))
            .to_owned(),
        table("rollout_waves")
            .col(uuid("rollout_id"))
            .col(integer("position"))
            .col(string("kind"))
            .col(big_integer("size"))
            .col(timestamp_with_time_zone_null("opened_at"))
            .col(timestamp_with_time_zone_null("ended_at"))
            .primary_key(Index::create().col("rollout_id").col("position"))
            .foreign_key(ForeignKey::create().from("rollout_waves", "rollout_id").to("rollouts", "id"))
            .to_owned(),
        table("rollout_targets")
            .col(uuid("rollout_id"))
            .col(uuid("tenant_id"))
            .col(uuid_null("server_id"))
            .col(integer("wave"))
            .col(string("state"))
            .col(integer("attempts"))
            .col(integer("version_before"))
            .col(integer_null("version_after"))
            .col(big_integer_null("duration_ms"))
            .col(string_null("error"))
            .col(uuid_null("lease_holder"))
            .col(timestamp_with_time_zone_null("lease_until"))
            .col(big_integer("fence"))
            .col(timestamp_with_time_zone("run_after"))
            .col(timestamp_with_time_zone_null("finished_at"))
            .primary_key(Index::create().col("rollout_id").col("tenant_id"))
            .foreign_key(ForeignKey::create().from("rollout_targets", "rollout_id").to("rollouts", "id"))
            .foreign_key(ForeignKey::create().from("rollout_targets", "tenant_id").to("tenants", "id"))
            .to_owned(),
    ]
}
