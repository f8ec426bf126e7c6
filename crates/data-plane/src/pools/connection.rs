//! One open connection to a tenant's database: SeaORM's statements on the driver's own connection.
//!
//! The driver's pool is left out. It sends a message of its own to the server after each statement, dials again on its own
//! account, and knows no bound that several pools share.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::sqlx::query::Query;
use sea_orm::sqlx::{
    AssertSqlSafe, Connection as _, Database, Error, Executor as _, IntoArguments, PgConnection, Postgres,
    SqlSafeStr as _, Sqlite, SqliteConnection, query_with,
};
use sea_orm::{
    DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr, SqliteTransactionMode, Statement, TransactionOptions, Values,
};
use sea_query_sqlx::SqlxValues;
use sqlx_core::transaction::TransactionManager as _;

type PostgresTransactions = <Postgres as Database>::TransactionManager;
type SqliteTransactions = <Sqlite as Database>::TransactionManager;

/// A connection of either engine.
pub(crate) enum Connection {
    Postgres(PgConnection),
    /// With a flag: the statement at work is given up.
    Sqlite(SqliteConnection, Arc<AtomicBool>),
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection").field(&self.backend()).finish()
    }
}

/// Steps of SQLite's virtual machine between two looks whether the statement is given up: well below a millisecond.
const LOOKED_EVERY: i32 = 10_000;

/// Text and values as the driver takes them. They may be needed again.
fn query<DB: Database>(statement: &Statement) -> Query<'_, DB, SqlxValues>
where
    SqlxValues: IntoArguments<DB>,
{
    let values = statement.values.clone().unwrap_or(Values(Vec::new()));
    query_with(AssertSqlSafe(statement.sql.as_str()), SqlxValues(values))
}

impl Connection {
    pub(crate) const fn backend(&self) -> DbBackend {
        match self {
            Self::Postgres(_) => DbBackend::Postgres,
            Self::Sqlite(..) => DbBackend::Sqlite,
        }
    }

    /// A connection to a SQLite file, whose statement ends once the connection is given up. The driver alone would let it run to its
    /// end. A statement that waits for another writer of the file ends when it has waited.
    pub(crate) async fn of_a_file(mut connection: SqliteConnection) -> Result<Self, Error> {
        let is_given_up = Arc::<AtomicBool>::default();
        let looked_at = Arc::clone(&is_given_up);
        let mut handle = connection.lock_handle().await?;
        handle.set_progress_handler(LOOKED_EVERY, move || !looked_at.load(Ordering::Relaxed));
        drop(handle);
        Ok(Self::Sqlite(connection, is_given_up))
    }

    /// Queues a rollback, which the next message brings to the server.
    pub(crate) fn start_rollback(&mut self) {
        match self {
            Self::Postgres(connection) => PostgresTransactions::start_rollback(connection),
            Self::Sqlite(connection, _) => SqliteTransactions::start_rollback(connection),
        }
    }

    /// Asks for a sign of life, and brings along what was queued.
    pub(crate) async fn ping(&mut self) -> Result<(), Error> {
        match self {
            Self::Postgres(connection) => connection.ping().await,
            Self::Sqlite(connection, _) => connection.ping().await,
        }
    }

    /// Frees the memory that an idle connection can do without: SQLite's cached pages and prepared statements.
    pub(crate) async fn rest(&mut self) -> Result<(), Error> {
        match self {
            Self::Postgres(_) => Ok(()),
            Self::Sqlite(connection, _) => {
                connection.clear_cached_statements().await?;
                connection.execute("PRAGMA shrink_memory").await.map(drop)
            }
        }
    }

    /// Ends whatever it is in the middle of. Of a file, that has ended when this returns.
    pub(crate) async fn give_up(self) -> Result<(), Error> {
        match &self {
            Self::Postgres(_) => return Ok(()),
            Self::Sqlite(_, is_given_up) => is_given_up.store(true, Ordering::Relaxed),
        }
        self.close().await
    }

    /// Says goodbye to the server.
    pub(crate) async fn close(self) -> Result<(), Error> {
        match self {
            Self::Postgres(connection) => connection.close().await,
            // Who leaves a SQLite database last puts its log away and waits for the disk: on a thread that nothing else waits for.
            Self::Sqlite(connection, _) => {
                let runtime = tokio::runtime::Handle::current();
                let closing = tokio::task::spawn_blocking(move || runtime.block_on(connection.close()));
                closing.await.unwrap_or(Err(Error::WorkerCrashed))
            }
        }
    }
}

/// One message to a database, and what it answers.
pub(crate) trait Message: Sync {
    /// What comes back.
    type Answer: Send;
    /// How SeaORM tells of its errors.
    const TOLD: fn(RuntimeErr) -> DbErr;

    fn send(&self, connection: &mut Connection) -> impl Future<Output = Result<Self::Answer, Error>> + Send;
}

/// A statement that answers how many rows it changed.
pub(crate) struct Execute<'a>(pub(crate) &'a Statement);

impl Message for Execute<'_> {
    type Answer = ExecResult;
    const TOLD: fn(RuntimeErr) -> DbErr = DbErr::Exec;

    async fn send(&self, connection: &mut Connection) -> Result<ExecResult, Error> {
        Ok(match connection {
            Connection::Postgres(connection) => query(self.0).execute(connection).await?.into(),
            Connection::Sqlite(connection, _) => query(self.0).execute(connection).await?.into(),
        })
    }
}

/// Statements as text, without values.
pub(crate) struct Unprepared<'a>(pub(crate) &'a str);

impl Message for Unprepared<'_> {
    type Answer = ExecResult;
    const TOLD: fn(RuntimeErr) -> DbErr = DbErr::Exec;

    async fn send(&self, connection: &mut Connection) -> Result<ExecResult, Error> {
        let sql = AssertSqlSafe(self.0.to_owned());
        Ok(match connection {
            Connection::Postgres(connection) => connection.execute(sql).await?.into(),
            Connection::Sqlite(connection, _) => connection.execute(sql).await?.into(),
        })
    }
}

/// A statement of whose rows the first is wanted.
pub(crate) struct QueryOne<'a>(pub(crate) &'a Statement);

impl Message for QueryOne<'_> {
    type Answer = Option<QueryResult>;
    const TOLD: fn(RuntimeErr) -> DbErr = DbErr::Query;

    async fn send(&self, connection: &mut Connection) -> Result<Option<QueryResult>, Error> {
        Ok(match connection {
            Connection::Postgres(connection) => query(self.0).fetch_optional(connection).await?.map(Into::into),
            Connection::Sqlite(connection, _) => query(self.0).fetch_optional(connection).await?.map(Into::into),
        })
    }
}

/// Statements as text, without values, of whose rows the first is wanted.
pub(crate) struct FirstOf<'a>(pub(crate) &'a str);

impl Message for FirstOf<'_> {
    type Answer = Option<QueryResult>;
    const TOLD: fn(RuntimeErr) -> DbErr = DbErr::Query;

    async fn send(&self, connection: &mut Connection) -> Result<Option<QueryResult>, Error> {
        let sql = AssertSqlSafe(self.0.to_owned());
        Ok(match connection {
            Connection::Postgres(connection) => connection.fetch_optional(sql).await?.map(Into::into),
            Connection::Sqlite(connection, _) => connection.fetch_optional(sql).await?.map(Into::into),
        })
    }
}

/// A statement all of whose rows are wanted.
pub(crate) struct QueryAll<'a>(pub(crate) &'a Statement);

impl Message for QueryAll<'_> {
    type Answer = Vec<QueryResult>;
    const TOLD: fn(RuntimeErr) -> DbErr = DbErr::Query;

    async fn send(&self, connection: &mut Connection) -> Result<Vec<QueryResult>, Error> {
        Ok(match connection {
            Connection::Postgres(connection) => {
                query(self.0).fetch_all(connection).await?.into_iter().map(Into::into).collect()
            }
            Connection::Sqlite(connection, _) => {
                query(self.0).fetch_all(connection).await?.into_iter().map(Into::into).collect()
            }
        })
    }
}

/// Begins a transaction, or a savepoint within the one that there is. Only the outermost has options.
pub(crate) struct Begin(pub(crate) TransactionOptions);

impl Message for Begin {
    type Answer = ();
    const TOLD: fn(RuntimeErr) -> DbErr = DbErr::Exec;

    async fn send(&self, connection: &mut Connection) -> Result<(), Error> {
        match connection {
            Connection::Postgres(connection) => {
                let begin = begin_postgres(self.0).map(|sql| AssertSqlSafe(sql).into_sql_str());
                PostgresTransactions::begin(connection, begin).await
            }
            Connection::Sqlite(connection, _) => {
                let is_outermost = SqliteTransactions::get_transaction_depth(connection) == 0;
                // SQLite takes its one write lock at once: a transaction that reads first could not take it later.
                let mode = self.0.sqlite_transaction_mode.unwrap_or(SqliteTransactionMode::Immediate);
                let begin =
                    is_outermost.then(|| AssertSqlSafe(format!("BEGIN {}", mode.sqlite_keyword())).into_sql_str());
                SqliteTransactions::begin(connection, begin).await
            }
        }
    }
}

/// Ends the innermost transaction: its work stays.
pub(crate) struct Commit;

impl Message for Commit {
    type Answer = ();
    const TOLD: fn(RuntimeErr) -> DbErr = DbErr::Exec;

    async fn send(&self, connection: &mut Connection) -> Result<(), Error> {
        match connection {
            Connection::Postgres(connection) => PostgresTransactions::commit(connection).await,
            Connection::Sqlite(connection, _) => SqliteTransactions::commit(connection).await,
        }
    }
}

/// Ends the innermost transaction: its work is undone.
pub(crate) struct Rollback;

impl Message for Rollback {
    type Answer = ();
    const TOLD: fn(RuntimeErr) -> DbErr = DbErr::Exec;

    async fn send(&self, connection: &mut Connection) -> Result<(), Error> {
        match connection {
            Connection::Postgres(connection) => PostgresTransactions::rollback(connection).await,
            Connection::Sqlite(connection, _) => SqliteTransactions::rollback(connection).await,
        }
    }
}

/// The statement that begins a transaction with these options; none for the server's defaults.
fn begin_postgres(options: TransactionOptions) -> Option<String> {
    if options.isolation_level.is_none() && options.access_mode.is_none() {
        return None;
    }
    let mut begin = "BEGIN".to_owned();
    if let Some(level) = options.isolation_level {
        let _ = write!(begin, " ISOLATION LEVEL {level}");
    }
    if let Some(mode) = options.access_mode {
        let _ = write!(begin, " {mode}");
    }
    Some(begin)
}
