//! How many tenants have a place on a server: counted as they come and go, so that nobody counts all of them.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::integer;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0004_placed"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let placed = integer("placed").default(0).to_owned();
        manager.alter_table(Table::alter().table("servers").add_column(placed).to_owned()).await?;
        let there = Query::select()
            .expr(Func::count(Expr::col(Asterisk)))
            .from("tenants")
            .and_where(Expr::col(("tenants", "server_id")).equals(("servers", "id")))
            .to_owned();
        let counted = Query::update()
            .table("servers")
            .value("placed", SimpleExpr::SubQuery(None, Box::new(there.into_sub_query_statement())))
            .to_owned();
        manager.execute(counted).await
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
