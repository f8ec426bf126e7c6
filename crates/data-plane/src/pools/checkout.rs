//! A connection in use: for one statement, or for a transaction.
//!
//! Its drop gives it back. One that was left in the middle of a statement, that died, or that answered that it is of no use any
//! more is closed instead, and what else of its kind is idle goes with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::sqlx::Error;
use sea_orm::{DbBackend, DbErr, RuntimeErr, TransactionOptions};
use service::pool::Verdict;
use service::problem::NoConnection;

use super::connection::{Begin, Message};
use super::metrics::Closed;
use super::tenant::{Live, TenantPool};

/// How long a new connection is taken to know how things are: one tenant's errors must not have its server open connections
/// all the time.
const FRESH_FOR: Duration = Duration::from_secs(1);
/// Of a transaction that was left open: how long its rollback may take.
const ROLLED_BACK_WITHIN: Duration = Duration::from_secs(1);

/// A connection that is given back when this is dropped.
pub(crate) struct Checkout {
    pool: Arc<TenantPool>,
    live: Option<Live>,
    condition: Condition,
    /// Transactions that are open, one within the other.
    depth: u32,
    /// A rollback was queued, and waits to be sent.
    is_rolling_back: bool,
    /// How long a statement may take, where that is another time than all have.
    deadline: Option<Duration>,
}

/// What becomes of a connection after its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Sound,
    /// A statement is at work on it, or was given up.
    AtWork,
    /// The connection is not used again.
    Spent,
}

/// Why a statement failed.
pub(crate) enum Failed {
    /// As the database answered.
    Database(Error),
    /// The same statement may succeed on another connection: this one was out of date, and did nothing.
    Stale(Error),
    /// No answer came in time.
    Silent(Duration),
}

impl std::fmt::Debug for Checkout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkout").field("pool", &self.pool).field("condition", &self.condition).finish_non_exhaustive()
    }
}

impl Checkout {
    pub(super) fn new(pool: Arc<TenantPool>, live: Live) -> Self {
        Self { pool, live: Some(live), condition: Condition::Sound, depth: 0, is_rolling_back: false, deadline: None }
    }

    /// Each statement may take this time, where it is another than all have.
    pub(crate) fn within(mut self, deadline: Option<Duration>) -> Self {
        self.deadline = deadline;
        self
    }

    /// When the connection was used last before.
    pub(super) fn used(&self) -> Instant {
        self.live.as_ref().map_or_else(Instant::now, |live| live.used)
    }

    /// The connection, to be kept by the caller.
    pub(super) fn into_live(mut self) -> Option<Live> {
        self.live.take()
    }

    /// Sends one message and takes its answer, within the time that a statement may take. After one that was given up, or an
    /// answer by which the connection serves no more, nothing is sent.
    pub(crate) async fn send<M: Message>(&mut self, message: &M) -> Result<M::Answer, Failed> {
        let usual = self.pool.server.settings.statement;
        let within = self.deadline.unwrap_or(usual);
        let Some(live) = self.live.as_mut().filter(|_| self.condition == Condition::Sound) else {
            return Err(Failed::Database(Error::PoolClosed));
        };
        self.condition = Condition::AtWork;
        live.is_new = false;
        let Ok(answer) = tokio::time::timeout(within, message.send(&mut live.connection)).await else {
            // Still at work: it is closed as one that was given up. One that had less time than others says nothing of the server.
            if within >= usual {
                self.pool.server.suspect();
            }
            return Err(Failed::Silent(within));
        };
        self.condition = Condition::Sound;
        // What was queued went out before it.
        self.is_rolling_back = false;
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let begun = live.begun;
        match Verdict::of(&error) {
            Verdict::Sound => Err(Failed::Database(error)),
            // Another new one would answer the same.
            Verdict::ReadOnly if live.opened.elapsed() < FRESH_FOR => Err(Failed::Database(error)),
            Verdict::Stale | Verdict::ReadOnly => {
                self.condition = Condition::Spent;
                // Those in use, too: the statement is sent once more, and must not meet another that is out of date.
                self.pool.renew_all_like(begun, Closed::Spent);
                Err(Failed::Stale(error))
            }
            Verdict::Lost => {
                self.pool.server.suspect();
                self.spoil();
                Err(Failed::Database(error))
            }
        }
    }

    /// Begins a transaction, or a savepoint within the one that there is; answers how deep it is.
    pub(crate) async fn begin(&mut self, options: TransactionOptions) -> Result<u32, Failed> {
        let begun = self.send(&Begin(options)).await;
        if let (Err(_), true) = (&begun, self.depth > 0) {
            // The driver has queued a rollback of something, and what is left of the transaction is not known.
            self.condition = Condition::Spent;
        }
        begun?;
        self.depth += 1;
        Ok(self.depth)
    }

    /// Ends the transaction of this depth, which is the innermost.
    pub(crate) async fn end<M: Message<Answer = ()>>(&mut self, depth: u32, how: M) -> Result<(), DbErr> {
        if self.condition == Condition::Sound && self.depth != depth {
            return Err(DbErr::Custom("a transaction within this one has not ended; end it first".to_owned()));
        }
        self.send(&how).await.map_err(|failed| failed.told(M::TOLD))?;
        self.depth -= 1;
        Ok(())
    }

    /// Whether the connection may still be used.
    pub(crate) fn is_sound(&self) -> bool {
        self.condition == Condition::Sound
    }

    /// The connection serves no more, and what is idle of the tenant's is no better.
    fn spoil(&mut self) {
        self.condition = Condition::Spent;
        for live in self.pool.take_all_idle() {
            self.pool.server.discard(&self.pool, live, Closed::Spent);
        }
    }

    /// Whether the connection shows a sign of life within this time.
    pub(super) async fn test(&mut self, within: Duration) -> bool {
        let Some(live) = self.live.as_mut() else { return false };
        self.condition = Condition::AtWork;
        let answer = tokio::time::timeout(within, live.connection.ping()).await;
        if matches!(answer, Ok(Ok(()))) {
            self.condition = Condition::Sound;
            return true;
        }
        self.pool.server.suspect();
        self.spoil();
        if answer.is_err() {
            // It is still in the middle of it.
            self.condition = Condition::AtWork;
        }
        false
    }

    /// Queues the rollback of a transaction of this depth that was left open, and of all within it.
    pub(crate) fn roll_back_later(&mut self, depth: u32) {
        while self.condition == Condition::Sound && self.depth >= depth {
            let Some(live) = self.live.as_mut() else { return };
            live.connection.start_rollback();
            self.depth -= 1;
            self.is_rolling_back = true;
        }
    }

    pub(crate) fn backend(&self) -> DbBackend {
        if self.pool.is_of_a_file() { DbBackend::Sqlite } else { DbBackend::Postgres }
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        self.roll_back_later(1);
        let Some(live) = self.live.take() else { return };
        match self.condition {
            // A rollback is sent before anything else is.
            Condition::Sound if self.is_rolling_back => {
                let mut checkout = Self::new(Arc::clone(&self.pool), live);
                self.pool.server.runtime.spawn(async move { checkout.test(ROLLED_BACK_WITHIN).await });
            }
            Condition::Sound => self.pool.give_back(live),
            Condition::AtWork => self.pool.server.discard(&self.pool, live, Closed::Broken),
            Condition::Spent => self.pool.server.discard(&self.pool, live, Closed::Spent),
        }
    }
}

impl Failed {
    /// As SeaORM tells it.
    pub(crate) fn told(self, by: fn(RuntimeErr) -> DbErr) -> DbErr {
        match self {
            Self::Database(error) | Self::Stale(error) => by(RuntimeErr::SqlxError(Arc::new(error))),
            Self::Silent(within) => {
                let detail = format!(
                    "The tenant's database did not answer within {} s. Send the request again after the time in Retry-After.",
                    within.as_secs_f64()
                );
                NoConnection::new("database-unavailable", detail, Duration::from_secs(1)).into()
            }
        }
    }
}
