//! Inside of one database, as its owner: what is done there, one thing after the other, on one connection.

use sea_orm::DatabaseConnection;
use tenancy::{TenantId, stamp};

use super::database::{self, MIGRATIONS, SEEDED};
use super::{EngineError, postgres};
use crate::schema::{NewTenant, TenantSchema};

/// A database that was entered. Every method is safe to repeat.
pub(crate) struct Entered {
    db: DatabaseConnection,
    /// Tables that tenants must not change are closed to their roles, where there are roles.
    has_roles: bool,
}

impl Entered {
    pub(super) const fn new(db: DatabaseConnection, has_roles: bool) -> Self {
        Self { db, has_roles }
    }

    /// Brings the schema to a version; answers the version that it has now.
    pub(crate) async fn migrate(&self, schema: &dyn TenantSchema, to: u32) -> Result<u32, EngineError> {
        let version = database::migrate(&self.db, schema, to).await?;
        self.protect(MIGRATIONS).await?;
        Ok(version)
    }

    /// Says in the database whose it is; refuses one that says otherwise.
    pub(crate) async fn stamp(&self, tenant: TenantId) -> Result<(), EngineError> {
        database::stamp(&self.db, tenant).await?;
        self.protect(stamp::TABLE).await
    }

    /// Whose the database is, by its stamp; none if it has none.
    pub(crate) async fn stamped(&self) -> Result<Option<String>, EngineError> {
        database::stamped(&self.db).await
    }

    /// Fills the database, once.
    pub(crate) async fn seed(&self, schema: &dyn TenantSchema, tenant: &NewTenant) -> Result<(), EngineError> {
        database::seed(&self.db, schema, tenant).await?;
        self.protect(SEEDED).await
    }

    /// How many rows there are, by table.
    pub(crate) async fn count_rows(&self) -> Result<serde_json::Map<String, serde_json::Value>, EngineError> {
        database::count_rows(&self.db).await
    }

    pub(crate) async fn leave(self) -> Result<(), EngineError> {
        self.db.close().await.map_err(|error| EngineError::of("close the connection", error))
    }

    async fn protect(&self, table: &str) -> Result<(), EngineError> {
        if self.has_roles { postgres::protect(&self.db, table).await } else { Ok(()) }
    }
}
