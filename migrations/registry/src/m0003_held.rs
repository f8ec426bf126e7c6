//! Operations know the epoch that they were ordered in: those of another one are held.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::uuid_null;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0003_held"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.alter_table(Table::alter().table("operations").add_column(uuid_null("epoch")).to_owned()).await?;
        // What is there was ordered in the epoch that is there.
        let present = Query::select().column("epoch").from("history").to_owned();
        let all = Query::update()
            .table("operations")
            .value("epoch", Expr::SubQuery(None, Box::new(present.into())))
            .to_owned();
        manager.get_connection().execute(&all).await.map(drop)
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
