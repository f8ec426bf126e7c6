//! A transaction of a tenant's: one connection until it ends.
//!
//! Dropped without a commit it is rolled back, before the connection serves anything else.

use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use sea_orm::{
    AccessMode, ConnectionTrait, DbBackend, DbErr, ExecResult, IsolationLevel, QueryResult, Statement,
    TransactionError, TransactionOptions, TransactionSession, TransactionTrait,
};
use tokio::sync::Mutex;

use super::db::Held;
use crate::pools::{Begin, Checkout, Commit, Execute, Failed, Message, QueryAll, QueryOne, Rollback, Unprepared};

/// What runs within a transaction.
pub(super) type Work<'c, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 'c>>;

/// A transaction, or a savepoint within one. While it lives, the request counts against the plan's concurrency.
#[derive(Debug)]
pub struct TenantTransaction {
    /// Given back first, then the session.
    checkout: Arc<Mutex<Checkout>>,
    held: Arc<Held>,
    backend: DbBackend,
    /// 1 for the outermost.
    depth: u32,
    is_ended: bool,
}

impl TenantTransaction {
    pub(super) async fn begin(
        held: Arc<Held>,
        mut checkout: Checkout,
        options: TransactionOptions,
    ) -> Result<Self, Failed> {
        let (depth, backend) = (checkout.begin(options).await?, checkout.backend());
        Ok(Self { checkout: Arc::new(Mutex::new(checkout)), held, backend, depth, is_ended: false })
    }

    async fn savepoint(&self, options: TransactionOptions) -> Result<Self, DbErr> {
        if options.isolation_level.is_some() || options.access_mode.is_some() {
            let detail = "only the outermost transaction has an isolation level or an access mode";
            return Err(DbErr::Custom(detail.to_owned()));
        }
        let depth = self.checkout.lock().await.begin(options).await.map_err(|failed| failed.told(Begin::TOLD))?;
        let (checkout, held) = (Arc::clone(&self.checkout), Arc::clone(&self.held));
        Ok(Self { checkout, held, backend: self.backend, depth, is_ended: false })
    }

    async fn send<M: Message>(&self, message: M) -> Result<M::Answer, DbErr> {
        self.checkout.lock().await.send(&message).await.map_err(|failed| failed.told(M::TOLD))
    }

    /// Runs the callback, and commits what succeeds.
    pub(super) async fn run<F, T, E>(self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c Self) -> Work<'c, T, E> + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        match callback(&self).await {
            Ok(result) => {
                self.commit().await.map_err(TransactionError::Connection)?;
                Ok(result)
            }
            Err(error) => {
                self.rollback().await.map_err(TransactionError::Connection)?;
                Err(TransactionError::Transaction(error))
            }
        }
    }
}

impl Drop for TenantTransaction {
    fn drop(&mut self) {
        if self.is_ended {
            return;
        }
        // No statement is at work on it: it would borrow this. One that was given up has closed the connection.
        if let Ok(mut checkout) = self.checkout.try_lock() {
            checkout.roll_back_later(self.depth);
        }
    }
}

#[async_trait]
impl TransactionSession for TenantTransaction {
    async fn commit(mut self) -> Result<(), DbErr> {
        self.checkout.lock().await.end(self.depth, Commit).await?;
        self.is_ended = true;
        Ok(())
    }

    async fn rollback(mut self) -> Result<(), DbErr> {
        let mut checkout = self.checkout.lock().await;
        // On a connection that is closed for its error nothing is left to be undone.
        if checkout.is_sound() {
            checkout.end(self.depth, Rollback).await?;
        }
        drop(checkout);
        self.is_ended = true;
        Ok(())
    }
}

#[async_trait]
impl ConnectionTrait for TenantTransaction {
    fn get_database_backend(&self) -> DbBackend {
        self.backend
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
impl TransactionTrait for TenantTransaction {
    type Transaction = Self;

    async fn begin(&self) -> Result<Self, DbErr> {
        self.savepoint(TransactionOptions::default()).await
    }

    async fn begin_with_config(
        &self,
        isolation_level: Option<IsolationLevel>,
        access_mode: Option<AccessMode>,
    ) -> Result<Self, DbErr> {
        self.savepoint(TransactionOptions { isolation_level, access_mode, ..TransactionOptions::default() }).await
    }

    async fn begin_with_options(&self, options: TransactionOptions) -> Result<Self, DbErr> {
        self.savepoint(options).await
    }

    async fn transaction<F, T, E>(&self, callback: F) -> Result<T, TransactionError<E>>
    where
        F: for<'c> FnOnce(&'c Self) -> Work<'c, T, E> + Send,
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
        F: for<'c> FnOnce(&'c Self) -> Work<'c, T, E> + Send,
        T: Send,
        E: std::fmt::Display + std::fmt::Debug + Send,
    {
        let begun = self.begin_with_config(isolation_level, access_mode).await;
        begun.map_err(TransactionError::Connection)?.run(callback).await
    }
}
