//! The product of these tests: a seed that shows when it was sown twice.

use async_trait::async_trait;
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};
use sea_orm_migration::prelude::*;

use crate::schema::{NewTenant, TenantSchema};

pub(crate) struct Notes;

/// A migration that is statements alone.
pub(crate) struct Statements(pub(crate) &'static str, pub(crate) &'static str);

impl MigrationName for Statements {
    fn name(&self) -> &str {
        self.0
    }
}

#[async_trait]
impl MigrationTrait for Statements {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(self.1).await.map(drop)
    }
}

#[async_trait]
impl TenantSchema for Notes {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(Statements("first", "CREATE TABLE notes (text TEXT NOT NULL)")),
            Box::new(Statements("second", "ALTER TABLE notes ADD COLUMN author TEXT")),
        ]
    }

    async fn seed(&self, db: &DatabaseTransaction, tenant: &NewTenant) -> Result<(), DbErr> {
        let insert = format!("INSERT INTO notes (text) VALUES ('for {}')", tenant.slug);
        db.execute_unprepared(&insert).await.map(drop)
    }
}
