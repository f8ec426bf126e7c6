//! Sessions on a Postgres server, and what each has for its own from its start.

use std::time::Duration;

use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::{ConnectOptions, DatabaseConnection, DbErr};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::engine::{Entered, Patience, Worker};

/// How long a session of the admin's own is used. One that began while its server took no writes refuses them for as long as it lives.
const LIFETIME: Duration = Duration::from_mins(1);

/// Sessions of the admin's own, which are replaced by and by.
pub(super) async fn connect(url: &str, worker: Worker, connections: u32) -> Result<DatabaseConnection, DbErr> {
    let mut options = options(url, worker, Session::default());
    options.max_connections(connections).map_sqlx_postgres_before_acquire(|_, session| {
        let is_fit = session.age < LIFETIME;
        Box::pin(async move { Ok(is_fit) })
    });
    open(options).await
}

/// One session, which is not replaced.
pub(super) async fn connect_with(url: &str, worker: Worker, session: Session) -> Result<DatabaseConnection, DbErr> {
    open(options(url, worker, session)).await
}

/// What is a session's own from its start, and is again whenever it is reset.
#[derive(Clone, Copy)]
pub(super) struct Session {
    pub(super) role: Option<&'static str>,
    pub(super) patience: Patience,
    /// Its statements are logged.
    pub(super) is_aloud: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self { role: None, patience: Patience::ALONE, is_aloud: false }
    }
}

impl Session {
    /// As the protocol has them when it starts.
    fn settings(self) -> impl Iterator<Item = (&'static str, String)> {
        // In whole milliseconds, of which 0 would be no limit at all.
        let limit = |limit: Duration| limit.as_millis().max(1).to_string();
        let limits =
            [("lock_timeout", limit(self.patience.lock)), ("statement_timeout", limit(self.patience.statement))];
        let quiet = ("client_min_messages", "warning".to_owned());
        limits.into_iter().chain([quiet]).chain(self.role.map(|role| ("role", role.to_owned())))
    }
}

fn options(url: &str, worker: Worker, session: Session) -> ConnectOptions {
    let mut options = ConnectOptions::new(url.to_owned());
    options
        .max_connections(1)
        .min_connections(0)
        .test_before_acquire(false)
        .test_before_acquire_if_idle_for(Duration::from_secs(1))
        .acquire_timeout(worker.patience)
        .connect_timeout(worker.patience)
        .sqlx_logging(session.is_aloud)
        .map_sqlx_postgres_opts(move |options: PgConnectOptions| {
            options.application_name(&application_name(worker.id)).options(session.settings())
        });
    options
}

async fn open(options: ConnectOptions) -> Result<DatabaseConnection, DbErr> {
    // In a task of its own: the driver computes the proof of a password in 800 turns, and in each all is polled that is around it.
    let connecting = AbortOnDropHandle::new(tokio::spawn(service::pool::open(options)));
    connecting.await.unwrap_or_else(|error| Err(DbErr::Custom(error.to_string())))
}

/// Whose session it is. Shorter than the 63 bytes that a server keeps of it.
pub(super) fn application_name(holder: Uuid) -> String {
    format!("freehold {holder}")
}

/// One session and no other: what holds a lock by it, and who ends it to take over, rely on that nothing goes on after it.
pub(super) fn only(db: DatabaseConnection, patience: Patience) -> Entered {
    // Where there is no socket, no second one is made.
    let nowhere = PgConnectOptions::new_without_pgpass().socket("/dev/null");
    db.get_postgres_connection_pool().set_connect_options(nowhere);
    Entered::new(db, true, patience)
}
