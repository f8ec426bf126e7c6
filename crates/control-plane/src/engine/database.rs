//! Names of databases: opaque, generated, and safe to quote. Also the steps that every engine's database takes alike.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::CryptoRng;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement, TransactionTrait};
use secrecy::SecretString;
use tenancy::{TenantId, stamp};

use super::EngineError;
use crate::schema::{NewTenant, TenantSchema};

const PREFIX: &str = "fh_";
const LENGTH: usize = 24;
const MARK_LENGTH: usize = 6;

/// Begins the names of all databases of one registry, so that several may share a server and none takes another's for a
/// stray: 6 characters of `[a-z0-9]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mark(String);

impl Mark {
    pub(crate) fn generate(rng: &mut impl CryptoRng) -> Self {
        Self(letters(MARK_LENGTH, rng))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Mark {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        let is_ours = text.len() == MARK_LENGTH && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if is_ours { Ok(Self(text.to_owned())) } else { Err(EngineError::refused("not a registry's mark of ours")) }
    }
}

/// Random letters of `[a-z0-9]`.
fn letters(count: usize, rng: &mut impl CryptoRng) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::new();
    while text.len() < count {
        let mut byte = [0];
        rng.fill_bytes(&mut byte);
        // Bytes past the last whole multiple of 36 would favour the first letters.
        if byte[0] < 252 {
            text.push(char::from(ALPHABET[usize::from(byte[0] % 36)]));
        }
    }
    text
}

/// `fh_`, the registry's mark, and 18 characters of `[a-z0-9]`: 93 random bits. Never a slug.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DatabaseName(String);

impl DatabaseName {
    pub(crate) fn generate(mark: &Mark, rng: &mut impl CryptoRng) -> Self {
        Self(format!("{PREFIX}{}{}", mark.as_str(), letters(LENGTH - MARK_LENGTH, rng)))
    }

    /// Whether it is of the registry with this mark.
    pub(crate) fn is_of(&self, mark: &Mark) -> bool {
        self.0.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with(mark.as_str()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The login role of a slot.
    pub(crate) fn role(&self, slot: Slot) -> String {
        format!("{}_{}", self.0, slot.as_str())
    }
}

impl FromStr for DatabaseName {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        let is_ours = text.strip_prefix(PREFIX).is_some_and(|rest| {
            rest.len() == LENGTH && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        });
        if is_ours { Ok(Self(text.to_owned())) } else { Err(EngineError::refused("not a database's name of ours")) }
    }
}

impl fmt::Display for DatabaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 256 random bits, in letters that need no escape in a URL.
pub(crate) fn new_password(rng: &mut impl CryptoRng) -> SecretString {
    let mut bytes = [0u8; 32];
    rng.fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes).into()
}

/// Which of a database's two login roles: they are used in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Slot {
    A,
    B,
}

impl Slot {
    pub(crate) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl FromStr for Slot {
    type Err = EngineError;

    fn from_str(text: &str) -> Result<Self, EngineError> {
        let found = Self::BOTH.into_iter().find(|slot| slot.as_str() == text);
        found.ok_or_else(|| EngineError::refused("a database has the login roles a and b, and no other"))
    }
}

/// Which migrations a database has.
pub(super) const MIGRATIONS: &str = "freehold_migrations";

/// Which migration was begun outside of a transaction, and is not known to have ended.
pub(super) const UNFINISHED: &str = "freehold_unfinished";

/// Marks a database as seeded, in the transaction of the seed.
pub(super) const SEEDED: &str = "freehold_seed";

/// Our own tables in a tenant's database.
pub(super) const OURS: [&str; 4] = [MIGRATIONS, UNFINISHED, stamp::TABLE, SEEDED];

/// Makes our own tables, where they are not yet.
pub(super) fn create_ours() -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {MIGRATIONS} (position INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE); \
         CREATE TABLE IF NOT EXISTS {UNFINISHED} (position INTEGER PRIMARY KEY, name TEXT NOT NULL); {}; \
         CREATE TABLE IF NOT EXISTS {SEEDED} (id INTEGER PRIMARY KEY CHECK (id = 1))",
        stamp::CREATE
    )
}

/// Whether a table of ours is there.
pub(super) async fn has_table(db: &impl ConnectionTrait, table: &str) -> Result<bool, DbErr> {
    let backend = db.get_database_backend();
    let sql = match backend {
        DbBackend::Sqlite => "SELECT name FROM sqlite_schema WHERE type = 'table' AND name = $1",
        // By the catalogue's own look-up: in a session that was just made, a query of `pg_tables` costs more than a migration.
        _ => "SELECT 1 WHERE to_regclass('public.' || $1) IS NOT NULL",
    };
    Ok(db.query_one_raw(Statement::from_sql_and_values(backend, sql, [table.into()])).await?.is_some())
}

/// Whose the database is, by its stamp; none if it has none.
pub(super) async fn stamped(db: &impl ConnectionTrait) -> Result<Option<String>, EngineError> {
    let failed = |error| EngineError::of("read the stamp of the database", error);
    match db.query_one_raw(Statement::from_string(db.get_database_backend(), stamp::SELECT)).await {
        Ok(row) => row.map(|row| row.try_get_by_index(0)).transpose().map_err(failed),
        // Looked for when it is missed: it mostly is there, and each look costs a new session as much as a migration's record.
        Err(_) if !has_table(db, stamp::TABLE).await.map_err(failed)? => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Refuses a database by what its stamp says.
pub(super) fn belongs_to(stamp: Option<&str>, tenant: TenantId) -> Result<(), EngineError> {
    match stamp {
        Some(stamp) if stamp == tenant.to_string() => Ok(()),
        Some(_) => Err(EngineError::refused("the database is stamped for another tenant; it is not touched")),
        None => Err(EngineError::refused("the database has no stamp, and may be anybody's; it is not touched")),
    }
}

/// Writes the stamp, or finds it right.
pub(super) async fn stamp(db: &DatabaseConnection, tenant: TenantId) -> Result<(), EngineError> {
    let failed = |error| EngineError::of("stamp the database", error);
    let backend = db.get_database_backend();
    let insert = Statement::from_sql_and_values(
        backend,
        format!("INSERT INTO {} (id, tenant_id) VALUES (1, $1) ON CONFLICT (id) DO NOTHING", stamp::TABLE),
        [tenant.to_string().into()],
    );
    if db.execute_raw(insert).await.map_err(failed)?.rows_affected() > 0 {
        return Ok(());
    }
    let row = db.query_one_raw(Statement::from_string(backend, stamp::SELECT)).await.map_err(failed)?;
    let found: Option<String> = row.map(|row| row.try_get_by_index(0)).transpose().map_err(failed)?;
    belongs_to(found.as_deref(), tenant)
}

/// Fills the database in one transaction with its mark; a marked one is left as it is.
pub(super) async fn seed(
    db: &DatabaseConnection,
    schema: &dyn TenantSchema,
    tenant: &NewTenant,
) -> Result<(), EngineError> {
    let failed = |error| EngineError::of("seed the database", error);
    let transaction = db.begin().await.map_err(failed)?;
    let mark = format!("INSERT INTO {SEEDED} (id) VALUES (1) ON CONFLICT (id) DO NOTHING");
    let marked = transaction.execute_unprepared(&mark).await.map_err(failed)?;
    if marked.rows_affected() == 0 {
        return Ok(());
    }
    schema.seed(&transaction, tenant).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

/// How many rows each table has, but for those that are ours.
pub(super) async fn count_rows(
    db: &DatabaseConnection,
) -> Result<serde_json::Map<String, serde_json::Value>, EngineError> {
    let failed = |error| EngineError::of("count the rows of the database", error);
    let backend = db.get_database_backend();
    let tables = match backend {
        DbBackend::Sqlite => {
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
             AND name NOT LIKE 'freehold_%' ORDER BY name"
        }
        // Quoted by the server: a product names its tables as it likes.
        _ => {
            "SELECT c.relname::text, quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
             AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND c.relname NOT LIKE 'freehold%' ORDER BY 1"
        }
    };
    let mut counts = serde_json::Map::new();
    for row in db.query_all_raw(Statement::from_string(backend, tables)).await.map_err(failed)? {
        let name: String = row.try_get_by_index(0).map_err(failed)?;
        let quoted = match backend {
            DbBackend::Sqlite => format!("\"{}\"", name.replace('"', "\"\"")),
            _ => row.try_get_by_index(1).map_err(failed)?,
        };
        let count = Statement::from_string(backend, format!("SELECT count(*) FROM {quoted}"));
        let counted = db.query_one_raw(count).await.map_err(failed)?;
        let count: Option<i64> = counted.map(|row| row.try_get_by_index(0)).transpose().map_err(failed)?;
        counts.insert(name, count.unwrap_or_default().into());
    }
    Ok(counts)
}
