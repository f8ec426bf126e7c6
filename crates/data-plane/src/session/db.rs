//! The tenant's database as its handlers use it: SeaORM's own traits over the tenant's connections, and nothing to dial with.

use std::sync::Arc;

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
/// in use a statement waits for up to `pools.wait_ms`, and then fails as what answers 503 `server-busy` or `pool-exhausted`.
#[derive(Clone, Debug)]
pub struct TenantDb(Arc<Held>);

#[derive(Debug)]
pub(super) struct Held {
    pool: PoolUse,
    _permit: Permit,
}

impl TenantDb {
    pub(crate) fn new(pool: PoolUse, permit: Permit) -> Self {
        Self(Arc::new(Held { pool, _permit: permit }))
    }

    async fn checkout(&self) -> Result<Checkout, DbErr> {
        self.0.pool.checkout().await.map_err(|refusal| NoConnection::from(refusal).into())
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
        if self.0.pool.is_of_a_file() { DbBackend::Sqlite } else { DbBackend::Postgres }
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
        match TenantTransaction::begin(Arc::clone(&self.0), self.checkout().await?, options).await {
            Ok(transaction) => return Ok(transaction),
            Err(Failed::Stale(_)) => {}
            Err(failed) => return Err(failed.told(Begin::TOLD)),
        }
        let begun = TenantTransaction::begin(Arc::clone(&self.0), self.checkout().await?, options).await;
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
