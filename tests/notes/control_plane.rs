//! The control plane of a product that keeps notes: the schema of its tenants' databases, and its declaration.

use std::process::ExitCode;
use std::sync::Arc;

use control_plane::{NewTenant, TenantSchema};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager};

struct Notes;

#[async_trait::async_trait]
impl TenantSchema for Notes {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(CreateNotes)]
    }

    async fn seed(&self, db: &DatabaseTransaction, _: &NewTenant) -> Result<(), DbErr> {
        db.execute_unprepared("INSERT INTO notes (text) VALUES ('Welcome')").await.map(drop)
    }
}

struct CreateNotes;

impl MigrationName for CreateNotes {
    fn name(&self) -> &'static str {
        "m0001_notes"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for CreateNotes {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("CREATE TABLE notes (text TEXT NOT NULL)").await.map(drop)
    }
}

fn main() -> ExitCode {
    service::run("notes-control-plane", async |config: control_plane::Config, service| {
        // The same as the data plane's.
        let product = tenancy::Product {
            name: "Notes",
            mount: "/api",
            schema_version: 1,
            scopes: &["notes:read"],
            config_keys: Vec::new(),
        };
        control_plane::start(config, product, Arc::new(Notes), service).await
    })
}
