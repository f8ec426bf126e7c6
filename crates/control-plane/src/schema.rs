//! What a product brings for its tenants' databases: migrations and a seed.

use async_trait::async_trait;
use sea_orm::{DatabaseTransaction, DbErr};
use sea_orm_migration::MigrationTrait;
use tenancy::{Slug, TenantId};

/// The schema of every tenant's database.
#[async_trait]
pub trait TenantSchema: Send + Sync + 'static {
    /// The append-only list of migrations; a database's schema version is how many of them it has.
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>>;

    /// Fills a new tenant's database. It is called once, in one transaction, after the migrations.
    async fn seed(&self, db: &DatabaseTransaction, tenant: &NewTenant) -> Result<(), DbErr>;
}

/// The tenant whose database is seeded.
#[derive(Debug, Clone)]
pub struct NewTenant {
    /// Its id.
    pub id: TenantId,
    /// Its slug when its database was made.
    pub slug: Slug,
    /// Its name, for people.
    pub name: String,
    /// Who administers it, if that was told.
    pub admin_email: Option<String>,
}
