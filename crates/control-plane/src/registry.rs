//! The registry: what the control plane knows, in a database of its own, on Postgres or SQLite.
//!
//! All that data planes can see changes through [`change::Change`], which gives out the revision. No SQL text is written
//! here.

pub(crate) mod change;
mod clock;
mod connection;
pub(crate) mod each;
pub(crate) mod entities;
pub(crate) mod feed;
pub(crate) mod lost;
pub(crate) mod nodes;
pub(crate) mod route;
mod shares;
pub(crate) mod slugs;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use sea_orm::sea_query::{Expr, Func, OnConflict, Query, SelectStatement};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectOptions, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter,
    SqliteTransactionMode, TransactionOptions,
};
use sea_orm_migration::MigratorTrait;
use secrecy::{ExposeSecret, SecretString};
use tenancy::Plan;
use tenancy::route::{Epoch, Revision};
use tokio::sync::{Notify, watch};
use url::Url;
use uuid::Uuid;

use crate::engine::Mark;
use clock::Clock;
pub(crate) use connection::{RegistryDb, RegistryTransaction};
use entities::{history, plans};
use lost::Told;
pub(crate) use shares::Left;

/// Connections that one control plane holds to the registry at most.
pub(crate) const CONNECTIONS: u32 = 16;
/// How long a statement waits for a connection, or for SQLite's one writer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A handle on the registry; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    db: RegistryDb,
    head: watch::Sender<Revision>,
    mark: Mark,
    /// Who is reached where, but for the password; none for a file.
    login: Option<Login>,
    clock: Clock,
    /// How many nodes there were when it was last looked.
    nodes: Arc<AtomicU32>,
    told: Told,
    /// Shares of servers' connections, as they were read last.
    dealt: Arc<tokio::sync::Mutex<Option<shares::Dealt>>>,
    /// A process of a data plane came that has no anchor yet, and opens nothing before it has one.
    newcomer: Arc<Notify>,
}

/// A login role on a server: host, port, user.
type Login = (String, u16, String);

fn login(url: &SecretString) -> Option<Login> {
    let url = Url::parse(url.expose_secret()).ok()?;
    let is_postgres = matches!(url.scheme(), "postgres" | "postgresql");
    is_postgres
        .then(|| (url.host_str().unwrap_or_default().to_owned(), url.port().unwrap_or(5432), url.username().to_owned()))
}

impl Registry {
    /// Connects, brings the registry's schema up to date and seeds it. `schema_version` is what a new registry's fleet
    /// begins with.
    pub(crate) async fn open(url: &SecretString, schema_version: u32) -> Result<Self, DbErr> {
        let mut options = ConnectOptions::new(url.expose_secret().to_owned());
        options
            .max_connections(CONNECTIONS)
            .acquire_timeout(PATIENCE)
            .connect_timeout(PATIENCE)
            .sqlx_logging(false)
            .test_before_acquire(false)
            .test_before_acquire_if_idle_for(Duration::from_secs(5))
            .map_sqlx_postgres_opts(|options| {
                options.application_name("freehold-registry").options([
                    // A process that froze in the middle of a change keeps its rows from nobody for long.
                    ("idle_in_transaction_session_timeout", "5s"),
                    // Well within a request's own time limit, and longer than any honest change takes.
                    ("lock_timeout", "30s"),
                    ("statement_timeout", "60s"),
                ])
            })
            .map_sqlx_sqlite_opts(|options| {
                options
                    .journal_mode(sea_orm::sqlx::sqlite::SqliteJournalMode::Wal)
                    .synchronous(sea_orm::sqlx::sqlite::SqliteSynchronous::Normal)
                    .busy_timeout(PATIENCE)
                    .foreign_keys(true)
            });
        let db = RegistryDb::connect(options).await?;
        let made = Mark::generate(&mut rand::rng());
        let (head, login, clock) = (watch::Sender::new(Revision(0)), login(url), Clock::default());
        let (nodes, told, dealt) = (Arc::default(), Told::default(), Arc::default());
        let newcomer = Arc::default();
        let mut registry = Self { db, head, mark: made, login, clock, nodes, told, dealt, newcomer };
        registry.set_clock().await?;
        registry.migrate().await?;
        registry.seed(schema_version).await?;
        // Another replica may have been faster.
        let mark = registry.history().await?.mark.unwrap_or_default();
        registry.mark = mark.parse().map_err(|_| DbErr::Custom("the registry's mark is damaged".to_owned()))?;
        Ok(registry)
    }

    /// Replicas may start at once: the loser of a race finds the winner's work done when it looks again.
    async fn migrate(&self) -> Result<(), DbErr> {
        let mut last = None;
        for attempt in 0..10u32 {
            match registry_migrations::Migrator::up(self.db.unwatched(), None).await {
                Ok(()) => return Ok(()),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(Duration::from_millis(50 * u64::from(attempt + 1))).await;
        }
        Err(last.unwrap_or_else(|| DbErr::Custom("no attempt was made".to_owned())))
    }

    async fn seed(&self, schema_version: u32) -> Result<(), DbErr> {
        let first = history::ActiveModel {
            id: Set(1),
            epoch: Set(Uuid::new_v4()),
            head: Set(0),
            schema_version: Set(i32::try_from(schema_version).unwrap_or(i32::MAX)),
            mark: Set(None),
            lost_from: Set(None),
            lost_to: Set(None),
            lost_node: Set(None),
            shares: Set(0),
        };
        let once = OnConflict::column(history::Column::Id).do_nothing().to_owned();
        history::Entity::insert(first).on_conflict(once).exec_without_returning(&self.db).await?;
        history::Entity::update_many()
            .col_expr(history::Column::Mark, Expr::value(self.mark.as_str()))
            .filter(history::Column::Mark.is_null())
            .exec(&self.db)
            .await?;
        for plan in Plan::seeded() {
            let once = OnConflict::column(plans::Column::Name).do_nothing().to_owned();
            plans::Entity::insert(plan_row(&plan)).on_conflict(once).exec_without_returning(&self.db).await?;
        }
        Ok(())
    }

    /// Begins the names of this registry's databases.
    pub(crate) const fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Whether the registry is on the server of this URL.
    pub(crate) fn is_on_server_of(&self, url: &SecretString) -> bool {
        let place = |login: &Option<Login>| login.as_ref().map(|(host, port, _)| (host.clone(), *port));
        self.login.is_some() && place(&self.login) == place(&login(url))
    }

    /// Whether the registry is reached by the same login role as this URL.
    pub(crate) fn is_reached_by(&self, url: &SecretString) -> bool {
        self.login.is_some() && self.login == login(url)
    }

    /// For reading.
    pub(crate) const fn db(&self) -> &RegistryDb {
        &self.db
    }

    /// For writing. SQLite takes its one write lock at once: a transaction that read first could not take it later.
    pub(crate) async fn begin(&self) -> Result<RegistryTransaction, DbErr> {
        let options = TransactionOptions {
            sqlite_transaction_mode: (self.db.get_database_backend() == DbBackend::Sqlite)
                .then_some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        self.db.begin_with_options(options).await
    }

    /// The registry's history.
    pub(crate) async fn history(&self) -> Result<history::Model, DbErr> {
        self.history_in(&self.db).await
    }

    /// As a change has it.
    #[allow(clippy::unused_self, reason = "whose history it is")]
    pub(crate) async fn history_in(&self, db: &impl ConnectionTrait) -> Result<history::Model, DbErr> {
        history::Entity::find_by_id(1).one(db).await?.ok_or_else(lacks_history)
    }

    /// Whether the registry answers and takes writes, and why not.
    pub(crate) async fn check(&self) -> Result<(), String> {
        let silent = |_| "the registry does not answer".to_owned();
        self.history().await.map_err(silent)?;
        if !self.is_read_only().await.map_err(silent)? {
            return Ok(());
        }
        // Sessions that began while it was so stay so, whatever the server does by now.
        self.db.found_read_only();
        if self.is_read_only().await.map_err(silent)? {
            return Err("the registry takes no writes: its database is read-only. If it was the primary, another server may be \
                        that now: see that `registry.url` leads there"
                .to_owned());
        }
        Ok(())
    }

    async fn is_read_only(&self) -> Result<bool, DbErr> {
        if self.db.get_database_backend() != DbBackend::Postgres {
            return Ok(false);
        }
        let setting = Func::cust("current_setting").arg("transaction_read_only");
        let row = self.db.query_one(&Query::select().expr(setting).to_owned()).await?;
        let row = row.ok_or_else(|| DbErr::RecordNotFound("the registry told no setting".to_owned()))?;
        Ok(row.try_get_by_index::<String>(0)? == "on")
    }

    /// The newest revision that this process has heard of, to wait on. It says *that* there is news, never what.
    pub(crate) fn head(&self) -> watch::Receiver<Revision> {
        self.head.subscribe()
    }

    /// Tells those who wait for news.
    pub(crate) fn announce(&self, head: Revision) {
        self.head.send_if_modified(|known| {
            let is_news = *known != head;
            *known = head;
            is_news
        });
    }

    /// Tells those who wait for news although the head is where it was: it is of another history.
    pub(crate) fn announce_again(&self) {
        self.head.send_modify(|_| {});
    }
}

/// The epoch that the registry's history is in, to compare with in a statement.
pub(crate) fn present_epoch() -> SelectStatement {
    Query::select().column(history::Column::Epoch).from(history::Entity).to_owned()
}

/// The same, unless part of the history is known to be lost.
pub(crate) fn whole_epoch() -> SelectStatement {
    present_epoch().and_where(history::Column::LostTo.is_null()).to_owned()
}

/// Identity and head as the language has them.
pub(crate) fn position(history: &history::Model) -> (Epoch, Revision) {
    (Epoch(history.epoch), Revision(history.head.unsigned_abs()))
}

fn lacks_history() -> DbErr {
    DbErr::RecordNotFound("the registry has no history; it was not set up".to_owned())
}

/// A plan as a row.
pub(crate) fn plan_row(plan: &Plan) -> plans::ActiveModel {
    let int = |number: std::num::NonZeroU32| i32::try_from(number.get()).unwrap_or(i32::MAX);
    plans::ActiveModel {
        name: Set(plan.name.clone()),
        requests: Set(plan.requests.map(int)),
        window_seconds: Set(int(plan.window_seconds)),
        burst: Set(plan.burst.map(int)),
        client_requests: Set(plan.client_requests.map(int)),
        client_burst: Set(plan.client_burst.map(int)),
        connections: Set(int(plan.connections)),
        concurrency: Set(int(plan.concurrency)),
    }
}

/// A row as a plan.
pub(crate) fn plan_of(row: plans::Model) -> Plan {
    let number = |it: i32| std::num::NonZeroU32::new(it.unsigned_abs());
    let at_least_one = |it: i32| number(it).unwrap_or(std::num::NonZeroU32::MIN);
    Plan {
        name: row.name,
        requests: row.requests.and_then(number),
        window_seconds: at_least_one(row.window_seconds),
        burst: row.burst.and_then(number),
        client_requests: row.client_requests.and_then(number),
        client_burst: row.client_burst.and_then(number),
        connections: at_least_one(row.connections),
        concurrency: at_least_one(row.concurrency),
    }
}
