//! Operations on servers: one is on a tenant or on a server, and either has one at a time at work.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, boolean, integer, string, string_null, timestamp_with_time_zone,
    timestamp_with_time_zone_null, uuid, uuid_null,
};
use sea_orm_migration::sea_orm::DbBackend;

use crate::{index, table};

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0009_of_servers"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        if manager.get_database_backend() == DbBackend::Sqlite {
            rebuild(manager).await?;
        } else {
            let tenant = ColumnDef::new("tenant_id").uuid().null().to_owned();
            manager.alter_table(Table::alter().table("operations").modify_column(tenant).to_owned()).await?;
            manager
                .alter_table(Table::alter().table("operations").add_column(uuid_null("server_id")).to_owned())
                .await?;
            let key = ForeignKey::create().from("operations", "server_id").to("servers", "id").to_owned();
            manager.create_foreign_key(key).await?;
        }
        manager.create_index(index("operations_server", "operations", &["server_id"])).await?;
        // As a tenant's: one at a time.
        let at_work = index("operations_at_work_on_server", "operations", &["server_id"])
            .unique()
            .and_where(Expr::col("state").is_in(["running", "undoing"]))
            .to_owned();
        manager.create_index(at_work).await
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

/// SQLite changes no column in place. The steps go first and come back last: they refer to operations.
async fn rebuild(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let (operations, steps) = (OPERATIONS.map(Alias::new), STEPS.map(Alias::new));
    manager.create_table(step_columns(table("steps_kept"))).await?;
    copy(manager, "operation_steps", "steps_kept", &steps).await?;
    manager.drop_table(Table::drop().table("operation_steps").to_owned()).await?;

    manager.create_table(operations_table("operations_kept")).await?;
    copy(manager, "operations", "operations_kept", &operations).await?;
    manager.drop_table(Table::drop().table("operations").to_owned()).await?;
    let renamed = Table::rename().table("operations_kept", "operations").to_owned();
    manager.rename_table(renamed).await?;

    let made = step_columns(table("operation_steps"))
        .foreign_key(ForeignKey::create().from("operation_steps", "operation_id").to("operations", "id"))
        .to_owned();
    manager.create_table(made).await?;
    copy(manager, "steps_kept", "operation_steps", &steps).await?;
    manager.drop_table(Table::drop().table("steps_kept").to_owned()).await?;

    manager.create_index(index("operations_state", "operations", &["state", "run_after"])).await?;
    manager.create_index(index("operations_tenant", "operations", &["tenant_id"])).await?;
    let at_work = index("operations_at_work", "operations", &["tenant_id"])
        .unique()
        .and_where(Expr::col("state").is_in(["running", "undoing"]))
        .to_owned();
    manager.create_index(at_work).await
}

const OPERATIONS: [&str; 16] = [
    "id",
    "kind",
    "tenant_id",
    "state",
    "error",
    "lease_holder",
    "lease_until",
    "fence",
    "run_after",
    "created_at",
    "finished_at",
    "is_forced",
    "awaited",
    "note",
    "requested_by",
    "epoch",
];

const STEPS: [&str; 6] = ["operation_id", "position", "name", "state", "attempts", "error"];

fn operations_table(name: &'static str) -> TableCreateStatement {
    table(name)
        .col(uuid("id").primary_key())
        .col(string("kind"))
        .col(uuid_null("tenant_id"))
        .col(uuid_null("server_id"))
        .col(string("state"))
        .col(string_null("error"))
        .col(uuid_null("lease_holder"))
        .col(timestamp_with_time_zone_null("lease_until"))
        .col(big_integer("fence"))
        .col(timestamp_with_time_zone("run_after"))
        .col(timestamp_with_time_zone("created_at"))
        .col(timestamp_with_time_zone_null("finished_at"))
        .col(boolean("is_forced").default(false))
        .col(big_integer_null("awaited"))
        .col(string_null("note"))
        .col(string_null("requested_by"))
        .col(uuid_null("epoch"))
        .foreign_key(ForeignKey::create().from(name, "tenant_id").to("tenants", "id"))
        .foreign_key(ForeignKey::create().from(name, "server_id").to("servers", "id"))
        .to_owned()
}

fn step_columns(mut table: TableCreateStatement) -> TableCreateStatement {
    table
        .col(uuid("operation_id"))
        .col(integer("position"))
        .col(string("name"))
        .col(string("state"))
        .col(integer("attempts"))
        .col(string_null("error"))
        .primary_key(Index::create().col("operation_id").col("position"))
        .to_owned()
}

async fn copy(
    manager: &SchemaManager<'_>,
    from: &'static str,
    to: &'static str,
    columns: &[Alias],
) -> Result<(), DbErr> {
    let all = Query::select().columns(columns.to_vec()).from(from).to_owned();
    let mut insert = Query::insert().into_table(to).columns(columns.to_vec()).to_owned();
    insert.select_from(all).map_err(|error| DbErr::Custom(error.to_string()))?;
    manager.execute(insert).await
}
