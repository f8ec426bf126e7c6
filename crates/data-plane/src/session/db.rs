//! The tenant's database as its handlers use it: SeaORM's own traits over the tenant's pool, and nothing to dial with.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use sea_orm::{
    AccessMode, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, IsolationLevel,
    QueryResult, SqliteTransactionMode, Statement, TransactionError, TransactionOptions, TransactionTrait,
};

use crate::pools::PoolUse;
use crate::uses::Permit;

/// A tenant's database. While a clone lives, its pool stays open and the request counts against the plan's concurrency.
#[derive(Clone, Debug)]
pub struct TenantDb(Arc<Held>);

#[derive(Debug)]
struct Held {
    pool: PoolUse,
    _permit: Permit,
}

impl TenantDb {
    pub(crate) fn new(pool: PoolUse, permit: Permit) -> Self {
        Self(Arc::new(Held { pool, _permit: permit }))
    }

    fn pool(&self) -> &DatabaseConnection {
        self.0.pool.db()
    }

    /// SQLite takes its one write lock at once: a transaction that reads first could not take it later.
    fn options(&self, mut options: TransactionOptions) -> TransactionOptions {
        if self.get_database_backend() == DbBackend::Sqlite && options.sqlite_transaction_mode.is_none() {
            options.sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
        }
        options
    }
}

#[async_trait]
impl ConnectionTrait for TenantDb {
    fn get_database_backend(&self) -> DbBackend {
        self.pool().get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.pool().execute_raw(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.pool().execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.pool().query_one_raw(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.pool().query_all_raw(statement).await
    }
}

type Work<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

#[async_trait]
impl TransactionTrait for TenantDb {
    type Transaction = DatabaseTransaction;

    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        self.begin_with_options(TransactionOptions::default()).await
    }

    async fn begin_with_config(
        &self,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<DatabaseTransaction, DbErr> {
        self.begin_with_options(TransactionOptions { isolation_level, access_mode, ..TransactionOptions::default() })
            .await
    }

    async fn begin_with_options(&self, options: TransactionOptions) -> Result<DatabaseTransaction, DbErr> {
        self.pool().begin_with_options(self.options(options)).await
    }

    async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c DatabaseTransaction) -> Work<'c, T, E> + Send,
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
        F: for<'c> FnOnce(&'c DatabaseTransaction) -> Work<'c, T, E> + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        let begun = self.begin_with_config(isolation_level, access_mode).await;
        let transaction = begun.map_err(TransactionError::Connection)?;
        // Dropped without a commit, it is rolled back.
        let result = callback(&transaction).await.map_err(TransactionError::Transaction)?;
        transaction.commit().await.map_err(TransactionError::Connection)?;
        Ok(result)
    }
}
