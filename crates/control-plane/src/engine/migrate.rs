//! The migrations of one database, taken or taken back up to a version: one at a time in the database, each once.
//!
//! Postgres: under an advisory lock of the one session that is entered, each migration in a transaction with its record, or
//! outside of one behind a mark (`unfinished.rs`). SQLite: each in an exclusive transaction with its record (`exclusive.rs`).

mod alone;
mod exclusive;
mod one;
mod state;
mod unfinished;

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseExecutor, DbBackend};
use sea_orm_migration::MigrationTrait;
use tenancy::TenantId;
use tokio::time::sleep;

use super::{EngineError, database};
use crate::schema::TenantSchema;
pub(super) use one::guarded;
use state::State;
pub(super) use state::Step;

/// How long a database's queries are held up, and a migration is tried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// Longest wait for one lock. Whatever comes later for the same table waits behind it, so this is for how long.
    pub(crate) lock: Duration,
    /// Longest that one statement of a migration runs.
    pub(crate) statement: Duration,
    /// How often a migration is tried that did not get its locks, at least once.
    pub(crate) lock_attempts: u32,
}

impl Patience {
    /// Where nobody else is at work.
    pub(super) const ALONE: Self =
        Self { lock: Duration::from_secs(10), statement: Duration::from_mins(1), lock_attempts: 1 };
}

impl Default for Patience {
    fn default() -> Self {
        Self { lock: Duration::from_millis(500), statement: Duration::from_mins(1), lock_attempts: 8 }
    }
}

impl Patience {
    /// The waits between attempts, in which the queries that waited behind one go on. With jitter: many databases may wait
    /// for one server.
    fn pauses(&self) -> ExponentialBackoff {
        ExponentialBuilder::new()
            .with_min_delay(self.lock)
            .with_max_delay(self.lock * 10)
            .with_max_times(self.lock_attempts.saturating_sub(1) as usize)
            .with_jitter()
            .build()
    }

    /// Does what must hold nothing once it has failed, and again after a pause where others are in its way, `lock_attempts`
    /// times at most.
    pub(super) async fn retry<T, F>(&self, work: impl Fn() -> F) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, EngineError>>,
    {
        let mut pauses = self.pauses();
        loop {
            let error = match work().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let Some(pause) = pauses.next().filter(|_| error.is_busy()) else { return Err(error) };
            sleep(pause).await;
        }
    }
}

/// The schema versions before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rolled {
    pub(crate) before: u32,
    pub(crate) after: u32,
}

/// Where a database may be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// One that is further already stays there.
    Up,
    /// One that is further is taken back.
    UpOrDown,
}

/// What is to be done to one database.
pub(super) struct Work<'a> {
    /// Another tenant's is refused.
    whose: Option<TenantId>,
    migrations: Vec<Box<dyn MigrationTrait>>,
    to: usize,
    way: Way,
    patience: &'a Patience,
    /// Tables that tenants must not change are closed to their roles, where there are roles.
    has_roles: bool,
}

impl<'a> Work<'a> {
    /// Refused where the program does not contain the version.
    pub(super) fn new(
        whose: Option<TenantId>,
        schema: &dyn TenantSchema,
        to: u32,
        way: Way,
        patience: &'a Patience,
        has_roles: bool,
    ) -> Result<Self, EngineError> {
        let migrations = schema.migrations();
        let to = usize::try_from(to).unwrap_or(usize::MAX);
        if to > migrations.len() {
            return Err(EngineError::refused(format!(
                "this program contains {} migrations and version {to} is asked for: start a newer one, or ask for a \
                 version that there is",
                migrations.len()
            )));
        }
        Ok(Self { whose, migrations, to, way, patience, has_roles })
    }

    /// Does it. What was done before a failure stays done.
    pub(super) async fn run(&self, db: &DatabaseConnection) -> Result<Rolled, EngineError> {
        match db.get_database_backend() {
            DbBackend::Sqlite => exclusive::one_by_one(db, self).await,
            _ => alone::under_lock(db, self).await,
        }
    }

    /// Refuses a database that is not stamped for the tenant.
    fn is_on(&self, stamp: Option<&str>) -> Result<(), EngineError> {
        self.whose.map_or(Ok(()), |tenant| database::belongs_to(stamp, tenant))
    }

    /// Where it matters whose the database is: nothing is made in one that is another's.
    async fn check_stamp(&self, db: &impl ConnectionTrait) -> Result<(), EngineError> {
        let stamp = if self.whose.is_some() { database::stamped(db).await? } else { None };
        self.is_on(stamp.as_deref())
    }

    /// On Postgres. The caller keeps others away, and has read the state since.
    async fn run_alone(&self, db: &DatabaseConnection, state: State) -> Result<Rolled, EngineError> {
        state.check(&self.migrations)?;
        if state.begun.is_some() {
            unfinished::repair(db).await?;
        }
        for step in state.steps(self.to, self.way) {
            one::run(db, self.migration(step), step, self.patience).await?;
        }
        Ok(self.rolled(state.done.len(), state.done.len()))
    }

    fn migration(&self, step: Step) -> &dyn MigrationTrait {
        self.migrations[step.position - 1].as_ref()
    }

    /// When all is done, of a database that had so many migrations before, and so many when it was read last.
    fn rolled(&self, before: usize, last: usize) -> Rolled {
        let after = if self.way == Way::Up { last.max(self.to) } else { self.to };
        Rolled { before: version(before), after: version(after) }
    }
}

fn version(migrations: usize) -> u32 {
    u32::try_from(migrations).unwrap_or(u32::MAX)
}

/// What a database lacks up to a version, for who runs it in another way than [`Work`].
pub(super) struct Pending {
    migrations: Vec<Box<dyn MigrationTrait>>,
    steps: Vec<Step>,
}

impl Pending {
    pub(super) async fn of(
        db: &DatabaseConnection,
        has_roles: bool,
        schema: &dyn TenantSchema,
        to: u32,
    ) -> Result<Self, EngineError> {
        let patience = Patience::default();
        let work = Work::new(None, schema, to, Way::Up, &patience, has_roles)?;
        let db = DatabaseExecutor::Connection(db);
        let state = State::read(&db, has_roles).await?;
        state.check(&work.migrations)?;
        Ok(Self { steps: state.steps(work.to, work.way), migrations: work.migrations })
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = (Step, &dyn MigrationTrait)> {
        self.steps.iter().map(|step| (*step, self.migrations[step.position - 1].as_ref()))
    }
}

/// How many of the schema's migrations the database has.
pub(super) async fn version_of(db: &DatabaseConnection) -> Result<u32, EngineError> {
    let db = DatabaseExecutor::Connection(db);
    let is_new = !state::has_records(&db).await?;
    if is_new { Ok(0) } else { Ok(version(State::read_done(&db).await?.len())) }
}
