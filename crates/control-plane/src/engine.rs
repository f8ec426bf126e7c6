//! How servers are worked: the only room with SQL text of our own.
//!
//! Every identifier in that text was generated here and is quoted. Every method is safe to repeat, since whoever called it
//! may have died before it could write down that it was done.

mod database;
mod error;
mod inspect;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use secrecy::SecretString;
use tenancy::TenantId;
use uuid::Uuid;

use crate::registry::entities::servers;
use crate::schema::{NewTenant, TenantSchema};
pub(crate) use database::{DatabaseName, Slot, new_password};
pub(crate) use error::EngineError;
pub(crate) use inspect::{Examination, Identity, Inspect, Inventory, Login};
pub(crate) use postgres::ensure_database;

/// The kinds of server that we can work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EngineKind {
    Postgres,
    Sqlite,
}

impl EngineKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
        }
    }
}

impl FromStr for EngineKind {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        [Self::Postgres, Self::Sqlite]
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| EngineError::refused("there is no such engine; there are postgres and sqlite"))
    }
}

/// A server of one kind.
#[async_trait]
pub(crate) trait Engine: Inspect + Send + Sync {
    /// Whether the server can be worked: reached, new enough, with the rights that are needed.
    async fn check(&self) -> Result<(), EngineError>;
    /// Makes an empty database that nobody but its own roles may enter.
    async fn create_database(&self, database: &DatabaseName) -> Result<(), EngineError>;
    /// Makes a login role for the database, or gives it this password.
    async fn create_role(
        &self,
        database: &DatabaseName,
        slot: Slot,
        password: &SecretString,
        connections: u32,
    ) -> Result<(), EngineError>;
    /// Ends a login role's sessions, and lets it make no new ones.
    async fn disable_role(&self, database: &DatabaseName, slot: Slot) -> Result<(), EngineError>;
    /// Brings the schema to a version; answers the version that it has now.
    async fn migrate(&self, database: &DatabaseName, schema: &dyn TenantSchema, to: u32) -> Result<u32, EngineError>;
    /// Says in the database whose it is; refuses one that says otherwise.
    async fn stamp(&self, database: &DatabaseName, tenant: TenantId) -> Result<(), EngineError>;
    /// Fills the database, once.
    async fn seed(
        &self,
        database: &DatabaseName,
        schema: &dyn TenantSchema,
        tenant: &NewTenant,
    ) -> Result<(), EngineError>;
    /// Drops the database and its roles, ending their sessions first.
    async fn drop_database(&self, database: &DatabaseName) -> Result<(), EngineError>;
    /// What a data plane dials.
    fn url(&self, database: &DatabaseName, slot: Slot, password: &SecretString) -> SecretString;
}

/// Servers whose engines are kept at most, and for how long after their last work.
const MOST_KEPT: u64 = 1_000;
const KEPT_FOR: Duration = Duration::from_mins(5);

/// The engines of servers that were worked lately. An engine keeps connections.
pub(crate) struct Engines(Cache<(Uuid, String), Arc<dyn Engine>>);

impl Default for Engines {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST_KEPT).time_to_idle(KEPT_FOR).build())
    }
}

impl Engines {
    /// The engine of a server as its row has it; its admin URL is opened if it is not at hand.
    pub(crate) fn of(
        &self,
        server: &servers::Model,
        admin_url: impl FnOnce() -> Result<SecretString, EngineError>,
    ) -> Result<Arc<dyn Engine>, EngineError> {
        // Another admin URL is another engine.
        let key = (server.id, server.sealed_admin_url.clone());
        if let Some(engine) = self.0.get(&key) {
            return Ok(engine);
        }
        let engine = engine_for(server.engine.parse()?, &admin_url()?)?;
        self.0.insert(key, Arc::clone(&engine));
        Ok(engine)
    }
}

/// The engine for a server.
pub(crate) fn engine_for(kind: EngineKind, admin_url: &SecretString) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(match kind {
        EngineKind::Postgres => Arc::new(postgres::Postgres::new(admin_url)?),
        EngineKind::Sqlite => Arc::new(sqlite::Sqlite::new(admin_url)?),
    })
}
