//! What is looked at on a server, and put right there without touching anybody's data. The doctor alone does either.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbErr, Statement};
use secrecy::SecretString;
use tenancy::stamp;

use super::database::{MIGRATIONS, SEEDED, has_table};
use super::{DatabaseName, EngineError, Slot};

/// Characters of a stamp that are read. An id has 36.
const LONGEST_STAMP: usize = 64;

/// What of our form is on a server. Everything else on it is nobody's business.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) databases: BTreeSet<DatabaseName>,
    /// Login roles. An engine without roles has none.
    pub(crate) roles: BTreeSet<(DatabaseName, Slot)>,
}

/// What a database says of itself.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The tenant that it is stamped for.
    pub(crate) stamp: Option<String>,
    pub(crate) schema_version: u32,
    /// A database is seeded after it was stamped, and serves after that alone.
    pub(crate) is_seeded: bool,
    /// Somebody else is in it.
    pub(crate) is_entered: bool,
}

/// A login role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    Absent,
    /// It is there, and cannot log in.
    Barred,
    Open,
}

/// A database as it was found.
#[derive(Debug)]
pub(crate) struct Examination {
    pub(crate) identity: Identity,
    /// The login role in use.
    pub(crate) in_use: Login,
    /// The one whose turn is next.
    pub(crate) other: Login,
    /// Where rights and settings are not as they were made, in words.
    pub(crate) drifts: Vec<String>,
}

/// The sessions of a server now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sessions {
    /// Of the names that were asked for; a name without sessions is left out.
    pub(crate) by_name: BTreeMap<String, u32>,
    /// Of all clients.
    pub(crate) open: u32,
}

/// How a server is looked at.
#[async_trait]
pub(crate) trait Inspect {
    /// Connections that the server takes of roles that are no superusers; none where it bounds them not.
    async fn connections(&self) -> Result<Option<u32>, EngineError> {
        Ok(None)
    }
    /// How many sessions there are of each of these names, and of all together.
    async fn sessions(&self, _names: &[String]) -> Result<Sessions, EngineError> {
        Ok(Sessions::default())
    }
    /// Whether the server answers at all.
    async fn answers(&self) -> Result<(), EngineError>;
    /// All databases and login roles of our form.
    async fn inventory(&self) -> Result<Inventory, EngineError>;
    /// What the database says of itself; none if it is not there.
    async fn identify(&self, database: &DatabaseName) -> Result<Option<Identity>, EngineError>;
    /// As [`Inspect::identify`], with its login roles, of which `in_use` may hold so many connections, and all that drifted.
    async fn examine(
        &self,
        database: &DatabaseName,
        in_use: Slot,
        connections: u32,
    ) -> Result<Option<Examination>, EngineError>;
    /// Whether the URL is for this database and login role, where the server is now.
    fn leads_to(&self, url: &SecretString, database: &DatabaseName, slot: Slot) -> bool;
    /// Whether the server lets in who shows a URL that leads to one of its databases.
    async fn admits(&self, url: &SecretString) -> Result<bool, EngineError>;
    /// Whether data planes reach it at another address than its admin.
    fn has_data_address(&self) -> bool {
        false
    }
    /// Refuses a server whose address for data planes, if it has one, leads to a pooler that is of no use to them, by a session in
    /// this database.
    async fn check_way(&self, _: &DatabaseName, _: Slot, _: &SecretString) -> Result<(), EngineError> {
        Ok(())
    }
    /// Makes rights and settings what they are on a new database. What was given to roles that are not ours stays.
    async fn restore_privileges(
        &self,
        database: &DatabaseName,
        in_use: Slot,
        connections: u32,
    ) -> Result<(), EngineError>;
    /// Drops a login role whose database is gone.
    async fn drop_role(&self, database: &DatabaseName, slot: Slot) -> Result<(), EngineError>;
    /// Which of these databases are not there, or were not dropped to the end; with a slot, also those whose login role is
    /// not there.
    async fn missing(&self, databases: &[DatabaseName], slot: Option<Slot>) -> Result<Vec<DatabaseName>, EngineError>;
    /// Those of these databases whose login role may hold another number of connections than so many; and how many.
    async fn limits_drifted(
        &self,
        databases: &[DatabaseName],
        slot: Slot,
        connections: u32,
    ) -> Result<Vec<(DatabaseName, i32)>, EngineError>;
    /// Has a login role that is there hold so many connections at most.
    async fn limit_role(&self, database: &DatabaseName, slot: Slot, connections: u32) -> Result<(), EngineError>;
}

/// Reads what a database says of itself; `is_entered` is for the engine to know.
pub(super) async fn identity(db: &DatabaseConnection) -> Result<Identity, DbErr> {
    let stamp = if has_table(db, stamp::TABLE).await? { first::<String>(db, stamp::SELECT).await? } else { None };
    // Of an id, all of it; of whatever else somebody wrote there, enough to know it by.
    let stamp = stamp.map(|stamp| stamp.chars().take(LONGEST_STAMP).collect());
    let count = |table: &str| format!("SELECT count(*) FROM {table}");
    let migrations = if has_table(db, MIGRATIONS).await? {
        first::<i64>(db, &count(MIGRATIONS)).await?.unwrap_or_default()
    } else {
        0
    };
    let is_seeded =
        has_table(db, SEEDED).await? && first::<i64>(db, &count(SEEDED)).await?.is_some_and(|rows| rows > 0);
    let schema_version = u32::try_from(migrations).unwrap_or(u32::MAX);
    Ok(Identity { stamp, schema_version, is_seeded, is_entered: false })
}

async fn first<T: sea_orm::TryGetable>(db: &DatabaseConnection, sql: &str) -> Result<Option<T>, DbErr> {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    row.map(|row| row.try_get_by_index(0)).transpose()
}
