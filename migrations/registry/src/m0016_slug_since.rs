//! Since when a tenant has its slug: a token that names a tenant by slug counts only if it was issued later.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::timestamp_with_time_zone_null;

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0016_slug_since"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Nullable: a control plane of the version before, which runs beside this one for a while, does not write it.
        let since = timestamp_with_time_zone_null("slug_since");
        manager.alter_table(Table::alter().table("tenants").add_column(since).to_owned()).await?;
        // No registry knows when a tenant was renamed before this.
        let known = Query::update().table("tenants").value("slug_since", Expr::col("created_at")).to_owned();
        manager.execute(known).await
    }

    /// SQLite would run it bare otherwise.
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
