//! Migrations run on a scratch copy, to see what they would do to databases in use: each statement, the locks that were held
//! before the commit, which tables were written anew, and what of that holds others up.

mod catalogue;
mod listener;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement, TransactionTrait as _};
use sea_orm_migration::{MigrationTrait, SchemaManager};
use tracing::instrument::WithSubscriber as _;

use super::EngineError;
use super::migrate::{Pending, Step, guarded};
use crate::schema::TenantSchema;
use catalogue::Catalogue;
use listener::Listener;

/// The lock mode that shuts everybody out, readers too.
const EXCLUSIVE: &str = "AccessExclusiveLock";

/// What one migration did.
#[derive(Debug)]
pub(crate) struct Rehearsed {
    pub(crate) migration: String,
    /// In their order, as the server got them. On SQLite without those that were handed to the driver as bare text.
    pub(crate) statements: Vec<String>,
    /// Tables that were there before, and in which modes they were locked before the commit; of a migration in a transaction.
    pub(crate) locks: Vec<(String, String)>,
    /// Tables that were there before and were written anew.
    pub(crate) rewrites: Vec<String>,
    /// Whether it ran in a transaction.
    pub(crate) transaction: bool,
    pub(crate) findings: Vec<Finding>,
}

/// Something that holds others up where a table is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) kind: Blocks,
    /// What it is, and what to do instead.
    pub(crate) detail: String,
}

/// How others are held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blocks {
    /// A table that was there is held for itself alone.
    AccessExclusive,
    /// A table that was there is written anew, with nobody in it.
    Rewrite,
    /// An index of a table that was there is not made concurrently.
    Index,
    /// A column that must not be null, without a default, or made so.
    NotNull,
    /// A column has another type.
    TypeChange,
    /// Outside of a transaction waits for locks are not bounded by the lock timeout.
    Unbounded,
}

impl Blocks {
    /// The word used in the API.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::AccessExclusive => "access_exclusive",
            Self::Rewrite => "rewrite",
            Self::Index => "index",
            Self::NotNull => "not_null",
            Self::TypeChange => "type_change",
            Self::Unbounded => "unbounded",
        }
    }
}

/// Runs what the database lacks up to a version, on a database that is nobody's.
pub(super) async fn rehearse(
    db: &DatabaseConnection,
    has_roles: bool,
    schema: &dyn TenantSchema,
    to: u32,
) -> Result<Vec<Rehearsed>, EngineError> {
    let pending = Pending::of(db, has_roles, schema, to).await?;
    let mut rehearsed = Vec::new();
    for (step, migration) in pending.steps() {
        rehearsed.push(one(db, step, migration).await?);
    }
    Ok(rehearsed)
}

async fn one(db: &DatabaseConnection, step: Step, migration: &dyn MigrationTrait) -> Result<Rehearsed, EngineError> {
    let failed = |error: DbErr| EngineError::of_migration(&step.what(migration), error);
    let listener = Listener::default();
    let is_postgres = db.get_database_backend() != DbBackend::Sqlite;
    let transaction = !(is_postgres && migration.use_transaction() == Some(false));
    let mut listening = db.clone();
    if !is_postgres {
        let listener = listener.clone();
        // The driver tells its statements on a thread of its own, where nobody listens.
        listening.set_metric_callback(move |told| listener.note(told.statement.to_string()));
    }
    let begun = listening.begin().await.map_err(failed)?;
    let (before, after, locks, statements);
    if transaction {
        before = Catalogue::read(&begun).await.map_err(failed)?;
        guarded(migration, step, &SchemaManager::new(&begun)).with_subscriber(listener.clone()).await?;
        statements = listener.statements();
        locks = self::locks(&begun, &before).await.map_err(failed)?;
        after = Catalogue::read(&begun).await.map_err(failed)?;
        step.record(&begun, migration.name()).await.map_err(failed)?;
        begun.commit().await.map_err(failed)?;
    } else {
        begun.rollback().await.map_err(failed)?;
        before = Catalogue::read(db).await.map_err(failed)?;
        guarded(migration, step, &SchemaManager::new(db)).with_subscriber(listener.clone()).await?;
        (statements, locks) = (listener.statements(), Vec::new());
        after = Catalogue::read(db).await.map_err(failed)?;
        let recording = db.begin().await.map_err(failed)?;
        step.record(&recording, migration.name()).await.map_err(failed)?;
        recording.commit().await.map_err(failed)?;
    }
    let mut findings = before.findings(&after, transaction);
    for (table, _) in locks.iter().filter(|(_, mode)| mode == EXCLUSIVE) {
        let detail = format!(
            "it holds {table} for itself until its commit: keep it short, alone in its migration, and in a quiet hour where \
             the table is large"
        );
        findings.push(Finding { kind: Blocks::AccessExclusive, detail });
    }
    if !transaction {
        findings.extend(statements.iter().filter_map(|statement| unbounded(statement)));
    }
    findings.sort_unstable_by_key(|finding| finding.kind);
    let rewrites = before.rewrites(&after);
    Ok(Rehearsed { migration: migration.name().to_owned(), statements, locks, rewrites, transaction, findings })
}

/// What waits for a table outside of a transaction, and is not of the kind that holds nobody up.
fn unbounded(statement: &str) -> Option<Finding> {
    let upper = statement.trim_start().to_uppercase();
    let is_index = upper.starts_with("CREATE INDEX") || upper.starts_with("CREATE UNIQUE INDEX");
    let waits =
        is_index || ["DROP INDEX", "ALTER TABLE", "DROP TABLE", "REINDEX"].iter().any(|it| upper.starts_with(it));
    let holds_nobody_up = upper.contains("CONCURRENTLY") || upper.contains("VALIDATE CONSTRAINT");
    (waits && !holds_nobody_up).then(|| Finding {
        kind: if is_index { Blocks::Index } else { Blocks::Unbounded },
        detail: format!("{statement}: outside of a transaction only what runs CONCURRENTLY holds nobody up"),
    })
}

/// The locks that this transaction holds on tables that were there before it.
async fn locks(db: &impl ConnectionTrait, before: &Catalogue) -> Result<Vec<(String, String)>, DbErr> {
    if db.get_database_backend() == DbBackend::Sqlite {
        return Ok(Vec::new());
    }
    let sql = "SELECT relation::bigint, mode FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY relation, mode";
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await?;
    let mut locks = Vec::new();
    for row in rows {
        if let Some(table) = before.table(row.try_get_by_index(0)?) {
            locks.push((table.to_owned(), row.try_get_by_index(1)?));
        }
    }
    Ok(locks)
}
