//! How servers are worked: the only room with SQL text of our own.
//!
//! Every identifier in that text was generated here and is quoted. Every method is safe to repeat, since whoever called it
//! may have died before it could write down that it was done.

mod anchor;
mod database;
mod entered;
mod error;
mod fingerprint;
mod inspect;
mod migrate;
mod postgres;
mod rehearse;
mod sqlite;
#[cfg(test)]
mod tests;

use std::num::NonZeroU32;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use moka::sync::Cache;
use secrecy::SecretString;
use uuid::Uuid;

use crate::registry::entities::servers;
pub(crate) use anchor::{AnchorRole, Anchors};
pub(crate) use database::{DatabaseName, Mark, Slot, new_password};
pub(crate) use entered::Entered;
#[cfg(test)]
pub(crate) use error::Kind;
pub(crate) use error::{EngineError, is_deadlock};
pub(crate) use fingerprint::{diff, hash};
pub(crate) use inspect::{Examination, Identity, Inspect, Inventory, Login, Sessions};
#[cfg(test)]
pub(crate) use migrate::Rolled;
pub(crate) use migrate::{Patience, Way};
pub(crate) use postgres::{ADMIN_CONNECTIONS, ensure_database};
#[cfg(test)]
pub(crate) use rehearse::Blocks;
pub(crate) use rehearse::Rehearsed;

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

/// Whether a database was made, or was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// Made now.
    Anew,
    /// Begun by somebody who died before it was written down, and perhaps in another way.
    Before,
}

/// A server of one kind.
#[async_trait]
pub(crate) trait Engine: Inspect + Anchors + Send + Sync {
    /// Whether the server can be worked: reached, new enough, with the rights that are needed.
    async fn check(&self) -> Result<(), EngineError>;
    /// Gives the admin another password.
    async fn set_admin_password(&self, password: &SecretString) -> Result<(), EngineError>;
    /// The admin's URL with another password; none where this kind of server has no passwords.
    fn admin_url_with(&self, password: &SecretString) -> Option<SecretString>;
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
    /// Enters the database as its owner. Nobody else is at work there.
    async fn enter(&self, database: &DatabaseName) -> Result<Entered, EngineError>;
    /// As [`Engine::enter`], while tenants may be in it: what is run there has the limits of `patience`, on SQLite for locks
    /// alone.
    async fn enter_among_others(&self, database: &DatabaseName, patience: Patience) -> Result<Entered, EngineError>;
    /// As [`Engine::enter`]; what is run there is told to who listens, for a rehearsal.
    async fn enter_aloud(&self, database: &DatabaseName) -> Result<Entered, EngineError> {
        self.enter(database).await
    }
    /// Makes a database that was made and migrated ready to be copied, and to nothing else.
    async fn make_template(&self, database: &DatabaseName) -> Result<(), EngineError>;
    /// As [`Engine::create_database`], with all that the template has.
    async fn copy_database(&self, template: &DatabaseName, database: &DatabaseName) -> Result<Made, EngineError>;
    /// Whether there is such a database.
    async fn has_database(&self, database: &DatabaseName) -> Result<bool, EngineError>;
    /// Whether nothing of the database can be had: somebody began to drop it, and did not to the end, or it was never more
    /// than a name.
    async fn is_invalid(&self, _: &DatabaseName) -> Result<bool, EngineError> {
        Ok(false)
    }
    /// Drops the database and its roles, ending their sessions first.
    async fn drop_database(&self, database: &DatabaseName) -> Result<(), EngineError>;
    /// Ends the sessions of a process of ours whose work was taken over: nothing that it began goes on.
    async fn end_sessions_of(&self, holder: Uuid) -> Result<(), EngineError>;
    /// What a data plane dials.
    fn url(&self, database: &DatabaseName, slot: Slot, password: &SecretString) -> SecretString;
}

/// Servers whose engines are kept at most, and for how long after their last work.
const MOST_KEPT: u64 = 1_000;
const KEPT_FOR: Duration = Duration::from_mins(5);

/// Drops what was made for a tenant, or for none yet; leaves a database that is stamped for another and says so. A registry
/// that was restored from a backup may take for its own what went to a tenant that it does not know any more.
pub(crate) async fn drop_unless_anothers(
    engine: &dyn Engine,
    database: &DatabaseName,
    tenant: Option<Uuid>,
) -> Result<bool, EngineError> {
    if engine.has_database(database).await? && !engine.is_invalid(database).await? {
        let entered = engine.enter(database).await?;
        let stamped = entered.stamped().await?;
        entered.leave().await?;
        if stamped.is_some() && stamped != tenant.map(|tenant| tenant.to_string()) {
            tracing::error!(
                database = database.as_str(),
                stamped,
                audit = "database-kept",
                "a database that was to be dropped is stamped for another tenant, and is left"
            );
            return Ok(false);
        }
    }
    engine.drop_database(database).await?;
    Ok(true)
}

/// Who works servers, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Worker {
    /// This process, as its sessions tell a server.
    pub(crate) id: Uuid,
    /// Of the verifiers of new passwords.
    pub(crate) scram_iterations: NonZeroU32,
    /// How long it tries to get a connection.
    pub(crate) patience: Duration,
}

impl Worker {
    /// Time enough for a server that is busy, and none to wait for one that is gone.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
}

/// A server, and all by which it is reached.
type Reached = (Uuid, String, Option<String>, Option<String>);

/// The engines of servers that were worked lately. An engine keeps connections.
pub(crate) struct Engines {
    worker: Worker,
    kept: Cache<Reached, Arc<dyn Engine>>,
}

impl Engines {
    pub(crate) fn new(worker: Worker) -> Self {
        Self { worker, kept: Cache::builder().max_capacity(MOST_KEPT).time_to_idle(KEPT_FOR).build() }
    }

    /// An engine for a server that is not registered, or not by this URL.
    pub(crate) fn new_for(&self, kind: EngineKind, admin_url: &SecretString) -> Result<Arc<dyn Engine>, EngineError> {
        self.new_at(kind, admin_url, None, None)
    }

    /// As [`Engines::new_for`], of a server that data planes reach at another address, and whose admin may have another URL next.
    pub(crate) fn new_at(
        &self,
        kind: EngineKind,
        admin_url: &SecretString,
        next: Option<&SecretString>,
        data_address: Option<&str>,
    ) -> Result<Arc<dyn Engine>, EngineError> {
        engine_at(kind, admin_url, next, data_address, self.worker)
    }

    /// The engine of a server as its row has it; its admin URLs, the present one and that which takes over, are opened if it is
    /// not at hand.
    pub(crate) fn of(
        &self,
        server: &servers::Model,
        admin_urls: impl FnOnce() -> Result<(SecretString, Option<SecretString>), EngineError>,
    ) -> Result<Arc<dyn Engine>, EngineError> {
        // Another admin URL is another engine.
        let (url, next) = (server.sealed_admin_url.clone(), server.next_sealed_admin_url.clone());
        let key = (server.id, url, next, server.data_address.clone());
        if let Some(engine) = self.kept.get(&key) {
            return Ok(engine);
        }
        let (admin_url, next) = admin_urls()?;
        let data_address = server.data_address.as_deref();
        let engine = self.new_at(server.engine.parse()?, &admin_url, next.as_ref(), data_address)?;
        self.kept.insert(key, Arc::clone(&engine));
        Ok(engine)
    }
}

#[cfg(test)]
fn engine_for(
    kind: EngineKind,
    admin_url: &SecretString,
    next: Option<&SecretString>,
    worker: Worker,
) -> Result<Arc<dyn Engine>, EngineError> {
    engine_at(kind, admin_url, next, None, worker)
}

fn engine_at(
    kind: EngineKind,
    admin_url: &SecretString,
    next: Option<&SecretString>,
    data_address: Option<&str>,
    worker: Worker,
) -> Result<Arc<dyn Engine>, EngineError> {
    Ok(match kind {
        EngineKind::Postgres => Arc::new(postgres::Postgres::new(admin_url, next, data_address, worker)?),
        EngineKind::Sqlite if data_address.is_some() => {
            return Err(EngineError::refused(
                "a folder of files has no address for data planes: leave data_address out",
            ));
        }
        EngineKind::Sqlite => Arc::new(sqlite::Sqlite::new(admin_url)?),
    })
}
