//! The control plane of a product whose migrations count themselves: each takes effect by a row of its own, and says when it is in
//! the middle of it.

use std::process::ExitCode;
use std::sync::Arc;

use async_trait::async_trait;
use control_plane::{NewTenant, TenantSchema};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbErr, Statement};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};
use tenancy::Product;

/// Writes its row. The first makes a table of words; the third fails where a word is there twice, and panics where one is `panic`.
struct Counted(&'static str);

impl MigrationName for Counted {
    fn name(&self) -> &str {
        self.0
    }
}

#[async_trait]
impl MigrationTrait for Counted {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let db = manager.get_connection();
        db.execute_unprepared("CREATE TABLE IF NOT EXISTS effects (migration TEXT NOT NULL)").await?;
        db.execute_unprepared(&format!("INSERT INTO effects VALUES ('{}')", self.0)).await?;
        tracing::info!("the {} migration is at work", self.0);
        match self.0 {
            "first" => db.execute_unprepared("CREATE TABLE words (word TEXT NOT NULL)").await.map(drop),
            "third" => {
                let panics = "SELECT word FROM words WHERE word = 'panic'";
                let panics = db.query_one_raw(Statement::from_string(db.get_database_backend(), panics)).await?;
                assert!(panics.is_none(), "a word of the tenant's");
                db.execute_unprepared("CREATE UNIQUE INDEX words_once ON words (word)").await.map(drop)
            }
            _ => Ok(()),
        }
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

struct Schema;

#[async_trait]
impl TenantSchema for Schema {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        ["first", "second", "third"].map(|name| Box::new(Counted(name)) as Box<dyn MigrationTrait>).into()
    }

    async fn seed(&self, _: &DatabaseTransaction, _: &NewTenant) -> Result<(), DbErr> {
        Ok(())
    }
}

fn main() -> ExitCode {
    let product =
        || Product { name: "Counted", mount: "/api", schema_version: 1, scopes: &[], config_keys: Vec::new() };
    service::run("counted-control-plane", async move |config: control_plane::Config, service| {
        control_plane::start(config, product(), Arc::new(Schema), service).await
    })
}
