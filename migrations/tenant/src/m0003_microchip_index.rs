//! A pet that was found is looked up by the number of its microchip.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{ConnectionTrait, DbBackend};

const INDEX: &str = "pets_microchip_id";

pub(crate) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0003_microchip_index"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Run again where it broke off, after what was left half-made is dropped.
        let mut index = Index::create().name(INDEX).table("pets").col("microchip_id").if_not_exists().to_owned();
        if manager.get_database_backend() == DbBackend::Postgres {
            index.concurrently();
        }
        manager.create_index(index).await
    }

    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let concurrently = if manager.get_database_backend() == DbBackend::Postgres { "CONCURRENTLY " } else { "" };
        let dropped = format!("DROP INDEX {concurrently}IF EXISTS {INDEX}");
        manager.get_connection().execute_unprepared(&dropped).await.map(drop)
    }

    /// Postgres makes no index concurrently inside of a transaction. On SQLite every migration is in one.
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }
}
