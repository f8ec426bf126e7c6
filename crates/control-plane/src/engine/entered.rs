//! Inside of one database, as its owner: what is done there, one thing after the other, on one connection.

use sea_orm::{ConnectionTrait, DatabaseConnection};
use tenancy::TenantId;

use super::database;
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
        self.prepare().await?;
        database::migrate(&self.db, schema, to).await
    }

    /// Says in a migrated database whose it is; refuses one that says otherwise.
    pub(crate) async fn stamp(&self, tenant: TenantId) -> Result<(), EngineError> {
        database::stamp(&self.db, tenant).await
    }

    /// Whose the database is, by its stamp; none if it has none.
    pub(crate) async fn stamped(&self) -> Result<Option<String>, EngineError> {
        database::stamped(&self.db).await
    }

    /// Fills a migrated database, once.
    pub(crate) async fn seed(&self, schema: &dyn TenantSchema, tenant: &NewTenant) -> Result<(), EngineError> {
        database::seed(&self.db, schema, tenant).await
    }

    /// How many rows there are, by table.
    pub(crate) async fn count_rows(&self) -> Result<serde_json::Map<String, serde_json::Value>, EngineError> {
        database::count_rows(&self.db).await
    }

    /// Whatever a test needs to have done there.
    #[cfg(test)]
    pub(crate) async fn execute(&self, sql: &str) {
        self.db.execute_unprepared(sql).await.expect("the test's own statement");
    }

    pub(crate) async fn leave(self) -> Result<(), EngineError> {
        self.db.close().await.map_err(|error| EngineError::of("close the connection", error))
    }

    /// Our own tables, which tenants may read and not change. A copy of a template has them.
    async fn prepare(&self) -> Result<(), EngineError> {
        let failed = |error| EngineError::of("prepare the database", error);
        if !database::has_ours(&self.db).await.map_err(failed)? {
            // In one transaction, on either engine: none is ever there and open to tenants.
            let protected = if self.has_roles { postgres::protect_ours() } else { String::new() };
            let made = format!("BEGIN; {}; {protected} COMMIT", database::create_ours());
            self.db.execute_unprepared(&made).await.map_err(failed)?;
        }
        Ok(())
    }
}
