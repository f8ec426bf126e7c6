//! The tenant's database as its handlers use it: SeaORM's own traits over the tenant's connections, and nothing to dial with.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, Statement,
    TransactionError, TransactionOptions, TransactionTrait,
};
use service::problem::NoConnection;

use super::transaction::{TenantTransaction, Work};
use crate::pools::{Begin, Checkout, Execute, Failed, Message, PoolUse, QueryAll, QueryOne, Unprepared};
use crate::uses::Permit;

/// A tenant's database. While a clone lives, its pool stays open and the request counts against the plan's concurrency.
///
/// Each statement takes one of the tenant's connections and gives it back; a transaction keeps one until it ends. Where all are
/// in use a statement waits for up to `pools.wait_ms`, and then fails as what answers 503 `server-busy` or `pool-exhausted`. Once sent,
/// it has `pools.statement_seconds` to be answered (35), or what [`TenantDb::within`] says.
#[derive(Clone, Debug)]
pub struct TenantDb {
    held: Arc<Held>,
    /// How long a statement may take, where that is another time than all have.
    deadline: Option<Duration>,
}

/// The shortest and the longest time that a statement may be given.
const DEADLINES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_hours(1));

#[derive(Debug)]
pub(super) struct Held {
    pool: PoolUse,
    _permit: Permit,
}

impl TenantDb {
    pub(crate) fn new(pool: PoolUse, permit: Permit) -> Self {
        Self { held: Arc::new(Held { pool, _permit: permit }), deadline: None }
    }

    /// The same database, and each statement has this time to be answered in place of `pools.statement_seconds`, from 1 ms to an
    /// hour; so has each of a transaction that is begun by it. For a handler that knows better than the configuration:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use data_plane::TenantSession;
    /// use sea_orm::{ConnectionTrait as _, Statement};
    /// use service::Problem;
    ///
    /// /// Suggests while somebody types: what takes longer comes too late.
    /// async fn suggest(session: TenantSession) -> Result<(), Problem> {
    ///     let db = session.db().within(Duration::from_millis(300));
    ///     let query = Statement::from_string(db.get_database_backend(), "SELECT text FROM notes ORDER BY text LIMIT 10");
    ///     db.query_all_raw(query).await?;
    ///     Ok(())
    /// }
    ///
    /// /// Sums up a year.
    /// async fn report(session: TenantSession) -> Result<(), Problem> {
    ///     session.db().within(Duration::from_secs(50)).execute_unprepared("REFRESH MATERIALIZED VIEW sums").await?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// A statement that is not answered in time is given up, and fails as what answers 503 `database-unavailable`. Its connection is
    /// closed, and the server ends what it is at; what became of a write is not known. The time that a statement waits for a connection
    /// is not part of it (`pools.wait_ms`), and the request's own time limit (`lifecycle.request_seconds`) stays: a longer deadline
    /// than that is of no use but to jobs.
    #[must_use]
    pub fn within(&self, deadline: Duration) -> Self {
        let deadline = deadline.clamp(DEADLINES.0, DEADLINES.1);
        Self { held: Arc::clone(&self.held), deadline: Some(deadline) }
    }

    async fn checkout(&self) -> Result<Checkout, DbErr> {
        let checkout = self.held.pool.checkout().await.map_err(NoConnection::from)?;
        Ok(checkout.within(self.deadline))
    }

    /// Sends a statement, and once more on another connection if the first was out of date.
    async fn send<M: Message>(&self, message: M) -> Result<M::Answer, DbErr> {
        match self.checkout().await?.send(&message).await {
            Ok(answer) => return Ok(answer),
            Err(Failed::Stale(_)) => {}
            Err(failed) => return Err(failed.told(M::TOLD)),
        }
        self.checkout().await?.send(&message).await.map_err(|failed| failed.told(M::TOLD))
    }
}

#[async_trait]
impl ConnectionTrait for TenantDb {
    fn get_database_backend(&self) -> DbBackend {
        if self.held.pool.is_of_a_file() { DbBackend::Sqlite } else { DbBackend::Postgres }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.send(Execute(&statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.send(Unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.send(QueryOne(&statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.send(QueryAll(&statement)).await
    }
}

#[async_trait]
impl TransactionTrait for TenantDb {
    type Transaction = TenantTransaction;

    async fn begin(&self) -> Result<TenantTransaction, DbErr> {
        self.begin_with_options(TransactionOptions::default()).await
    }

    async fn begin_with_config(
        &self,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<TenantTransaction, DbErr> {
        self.begin_with_options(TransactionOptions { isolation_level, access_mode, ..TransactionOptions::default() })
            .await
    }

    async fn begin_with_options(&self, options: TransactionOptions) -> Result<TenantTransaction, DbErr> {
        // As a statement: once more on another connection if the first was out of date.
        match TenantTransaction::begin(Arc::clone(&self.held), self.checkout().await?, options).await {
            Ok(transaction) => return Ok(transaction),
            Err(Failed::Stale(_)) => {}
            Err(failed) => return Err(failed.told(Begin::TOLD)),
        }
        let begun = TenantTransaction::begin(Arc::clone(&self.held), self.checkout().await?, options).await;
        begun.map_err(|failed| failed.told(Begin::TOLD))
    }

    async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c TenantTransaction) -> Work<'c, T, E> + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        self.transaction_with_config(callback, None, None).await
    }

    async fn transaction_with_config<F, T, E>(
        &self,
        callback: F,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c TenantTransaction) -> Work<'c, T, E> + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        let begun = self.begin_with_config(isolation_level, access_mode).await;
        begun.map_err(TransactionError::Connection)?.run(callback).await
    }
}
