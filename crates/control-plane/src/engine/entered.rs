//! Inside of one database, as its owner: what is done there, one thing after the other, on one connection.

#[cfg(test)]
use sea_orm::ConnectionTrait;
use sea_orm::DatabaseConnection;
use service::pool::close;
use tenancy::TenantId;

use super::EngineError;
use super::database;
use super::fingerprint;
use super::migrate::{self, Patience, Rolled, Way, Work};
use super::rehearse::{self, Rehearsed};
use crate::schema::{NewTenant, TenantSchema};

/// A database that was entered. Every method is safe to repeat.
pub(crate) struct Entered {
    db: DatabaseConnection,
    /// Tables that tenants must not change are closed to their roles, where there are roles.
    has_roles: bool,
    patience: Patience,
}

impl Entered {
    pub(super) const fn new(db: DatabaseConnection, has_roles: bool, patience: Patience) -> Self {
        Self { db, has_roles, patience }
    }

    /// Brings the schema up to a version; answers the version that it has now, which may be a later one.
    pub(crate) async fn migrate(&self, schema: &dyn TenantSchema, to: u32) -> Result<u32, EngineError> {
        self.roll(None, schema, to, Way::Up).await.map(|rolled| rolled.after)
    }

    /// Takes the schema to a version, up or down. Where tenants use the database ([`super::Engine::enter_among_others`]), no
    /// query of theirs waits behind a migration for longer than the lock timeout and the migration's own run time. Refuses a database that is not stamped for the tenant, if one is
    /// given. Tells what came of it by [`EngineError::kind`].
    pub(crate) async fn roll(
        &self,
        whose: Option<TenantId>,
        schema: &dyn TenantSchema,
        to: u32,
        way: Way,
    ) -> Result<Rolled, EngineError> {
        Work::new(whose, schema, to, way, &self.patience, self.has_roles)?.run(&self.db).await
    }

    /// The schema version that the database has; 0 of one that was never migrated.
    pub(crate) async fn version(&self) -> Result<u32, EngineError> {
        migrate::version_of(&self.db).await
    }

    /// The schema as the catalogue has it, a line for each object, sorted: [`super::diff`] tells two apart, and [`super::hash`]
    /// whether they are the same.
    pub(crate) async fn schema(&self) -> Result<Vec<String>, EngineError> {
        fingerprint::lines(&self.db).await
    }

    /// Runs what a scratch copy lacks up to a version, and tells what each migration did. Of one that was entered by
    /// [`super::Engine::enter_aloud`]; the database must be nobody's, and is not undone.
    pub(crate) async fn rehearse(&self, schema: &dyn TenantSchema, to: u32) -> Result<Vec<Rehearsed>, EngineError> {
        rehearse::rehearse(&self.db, self.has_roles, schema, to).await
    }

    /// Refuses a database that is not stamped for this tenant.
    pub(crate) async fn belongs_to(&self, tenant: TenantId) -> Result<(), EngineError> {
        database::belongs_to(self.stamped().await?.as_deref(), tenant)
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
        close(self.db).await.map_err(|error| EngineError::of("close the connection", error))
    }
}
