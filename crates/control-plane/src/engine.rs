//! How servers are worked: the only room with SQL text of our own.
//!
//! Every identifier in that text was generated here and is quoted. Every method is safe to repeat, since whoever called it
//! may have died before it could write down that it was done.

mod database;
mod error;
mod postgres;
mod sqlite;
#[cfg(test)]
mod tests;

use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use tenancy::TenantId;

use crate::schema::{NewTenant, TenantSchema};
pub(crate) use database::{DatabaseName, Slot};
pub(crate) use error::EngineError;
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
pub(crate) trait Engine: Send + Sync {
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

/// The engine for a server.
pub(crate) fn engine_for(kind: EngineKind, admin_url: &SecretString) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(match kind {
        EngineKind::Postgres => Arc::new(postgres::Postgres::new(admin_url)?),
        EngineKind::Sqlite => Arc::new(sqlite::Sqlite::new(admin_url)?),
    })
}
