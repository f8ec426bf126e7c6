//! The registry's connections: SeaORM's own, but that one which proved to be of no use any more serves no other statement.
//!
//! A server that was demoted ends no session, and each goes on to refuse writes for as long as it lives. So each error is looked at
//! here, and the driver's pool asks here before it hands out a connection that was idle.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    QueryResult, Statement, TransactionOptions, TransactionTrait as _,
};
use service::pool::Verdict;
use tracing::Instrument as _;

/// A connection is replaced after this time, or up to a fifth earlier.
const LIFETIME: Duration = Duration::from_mins(30);
/// From this age on it may be replaced.
const RIPE: Duration = Duration::from_mins(24);
/// From then on all are replaced within this time, one after the other.
const REPLACED_WITHIN: Duration = Duration::from_mins(6);
/// How long a new connection is taken to know whether the server takes writes: a standby must not be dialled all the time.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// The registry's database; clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct RegistryDb {
    db: DatabaseConnection,
    fitness: Fitness,
}

/// A transaction of the registry's. Dropped without a commit, it is rolled back.
#[derive(Debug)]
pub(crate) struct RegistryTransaction {
    transaction: DatabaseTransaction,
    fitness: Fitness,
}

/// Which connections may serve on.
#[derive(Clone, Debug)]
struct Fitness(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Connections that were opened before this moment are closed instead of their next use.
    spoiled_at: Option<Instant>,
    /// When that was for the last time because one took no writes.
    read_only_at: Option<Instant>,
    /// When those are closed too that were opened just after one took no writes: they may take none either.
    spoils_again_at: Option<Instant>,
    /// Before this moment no other connection is replaced for its age alone.
    next_replacement: Instant,
}

impl RegistryDb {
    pub(super) async fn connect(mut options: ConnectOptions) -> Result<Self, DbErr> {
        let fitness = Fitness::new(Instant::now());
        let asked = fitness.clone();
        // A file is no server that could be demoted: its connections last.
        options.map_sqlx_postgres_before_acquire(move |_, connection| {
            let is_fit = asked.is_fit(connection.age, Instant::now());
            Box::pin(async move { Ok(is_fit) })
        });
        Ok(Self { db: service::pool::open(options).await?, fitness })
    }

    /// The driver's own, for migrations.
    pub(super) const fn unwatched(&self) -> &DatabaseConnection {
        &self.db
    }

    /// Begins a transaction. One whose request is given up meanwhile is begun all the same, and rolled back.
    ///
    /// In a task of its own: if the driver (sqlx 0.9.0) is interrupted between `BEGIN` and its answer, it gives back a connection that is
    /// in a transaction, and does not know it. What others write there is then undone with that transaction, or waits with its locks.
    pub(crate) async fn begin_with_options(&self, options: TransactionOptions) -> Result<RegistryTransaction, DbErr> {
        let db = self.db.clone();
        let beginning = tokio::spawn(async move { db.begin_with_options(options).await }.in_current_span());
        let begun = beginning.await.unwrap_or_else(|error| Err(DbErr::Custom(error.to_string())));
        let transaction = self.fitness.heed(begun)?;
        Ok(RegistryTransaction { transaction, fitness: self.fitness.clone() })
    }

    /// A connection was found that takes no writes: no other of its age is used again.
    pub(super) fn found_read_only(&self) {
        self.fitness.found(Verdict::ReadOnly, Instant::now());
    }

    /// Sends a statement, and once more on another connection if the first one was out of date and did nothing.
    async fn send<T, F: Future<Output = Result<T, DbErr>>>(&self, statement: impl Fn() -> F) -> Result<T, DbErr> {
        match self.fitness.heed(statement().await) {
            Err(error) if matches!(Verdict::of_statement(&error), Verdict::Stale | Verdict::ReadOnly) => {
                self.fitness.heed(statement().await)
            }
            answer => answer,
        }
    }
}

#[async_trait]
impl ConnectionTrait for RegistryDb {
    fn get_database_backend(&self) -> DbBackend {
        self.db.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.send(|| self.db.execute_raw(statement.clone())).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        // Several statements may be in it, of which some had an effect.
        self.fitness.heed(self.db.execute_unprepared(sql).await)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.send(|| self.db.query_one_raw(statement.clone())).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.send(|| self.db.query_all_raw(statement.clone())).await
    }
}

impl RegistryTransaction {
    pub(crate) async fn commit(self) -> Result<(), DbErr> {
        self.fitness.heed(self.transaction.commit().await)
    }
}

#[async_trait]
impl ConnectionTrait for RegistryTransaction {
    fn get_database_backend(&self) -> DbBackend {
        self.transaction.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.fitness.heed(self.transaction.execute_raw(statement).await)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.fitness.heed(self.transaction.execute_unprepared(sql).await)
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.fitness.heed(self.transaction.query_one_raw(statement).await)
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.fitness.heed(self.transaction.query_all_raw(statement).await)
    }
}

impl Fitness {
    fn new(now: Instant) -> Self {
        Self(Arc::new(Mutex::new(State {
            spoiled_at: None,
            read_only_at: None,
            spoils_again_at: None,
            next_replacement: now,
        })))
    }

    /// Looks at what a statement came to.
    fn heed<T>(&self, answer: Result<T, DbErr>) -> Result<T, DbErr> {
        if let Err(error) = &answer {
            self.found(Verdict::of_statement(error), Instant::now());
        }
        answer
    }

    fn found(&self, verdict: Verdict, now: Instant) {
        let mut state = self.state();
        match verdict {
            Verdict::Sound => return,
            Verdict::ReadOnly => {
                // Another new one would answer the same.
                if state.read_only_at.is_some_and(|at| now.saturating_duration_since(at) < FRESH_FOR) {
                    return;
                }
                state.read_only_at = Some(now);
                state.spoils_again_at = Some(now + FRESH_FOR);
            }
            Verdict::Stale | Verdict::Lost => {}
        }
        state.spoiled_at = Some(now);
    }

    /// Whether a connection of this age may serve another statement.
    fn is_fit(&self, age: Duration, now: Instant) -> bool {
        let mut state = self.state();
        if let Some(again) = state.spoils_again_at.take_if(|again| *again <= now) {
            state.spoiled_at = state.spoiled_at.max(Some(again));
        }
        // One that is older than the machine's clock can tell is old.
        let is_spoiled = state.spoiled_at.is_some_and(|at| now.checked_sub(age).is_none_or(|opened| opened <= at));
        if is_spoiled || age >= LIFETIME {
            return false;
        }
        if age < RIPE || now < state.next_replacement {
            return true;
        }
        // One after the other, lest all that were opened together end together.
        let pause = REPLACED_WITHIN / super::CONNECTIONS;
        state.next_replacement = now + pause.mul_f32(rand::random_range(0.5..=1.0));
        false
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_opened_before_an_error_of_the_server_serves_no_more() {
        let begin = Instant::now();
        let fitness = Fitness::new(begin);
        let second = Duration::from_secs(1);
        fitness.found(Verdict::Sound, begin + second);
        assert!(fitness.is_fit(second * 2, begin + second * 2));
        fitness.found(Verdict::Lost, begin + second * 3);
        assert!(!fitness.is_fit(second * 2, begin + second * 4), "it was there when the server ended sessions");
        assert!(fitness.is_fit(second, begin + second * 5), "it was opened afterwards");
    }

    #[test]
    fn a_standby_is_dialled_again_once_a_second_at_most() {
        let begin = Instant::now();
        let fitness = Fitness::new(begin);
        let soon = FRESH_FOR / 2;
        fitness.found(Verdict::ReadOnly, begin);
        fitness.found(Verdict::ReadOnly, begin + soon);
        assert!(fitness.is_fit(soon / 2, begin + soon), "a new one would answer the same");
        fitness.found(Verdict::ReadOnly, begin + FRESH_FOR);
        assert!(!fitness.is_fit(soon, begin + FRESH_FOR));
        fitness.found(Verdict::Stale, begin + FRESH_FOR + soon);
        assert!(!fitness.is_fit(soon / 2, begin + FRESH_FOR + soon), "a new one has new plans");
        let late = begin + FRESH_FOR * 2 + soon;
        assert!(!fitness.is_fit(FRESH_FOR, late), "it was opened when the server may still have taken no writes");
        assert!(fitness.is_fit(soon / 2, late));
    }

    #[test]
    fn connections_are_replaced_one_after_the_other() {
        let begin = Instant::now();
        let (fitness, now) = (Fitness::new(begin), begin + RIPE);
        assert!(fitness.is_fit(RIPE.checked_sub(Duration::from_secs(1)).unwrap(), now));
        assert!(!fitness.is_fit(RIPE, now));
        assert!(fitness.is_fit(RIPE, now), "another one was replaced a moment ago");
        assert!(!fitness.is_fit(LIFETIME, now), "none lives longer");
    }
}
