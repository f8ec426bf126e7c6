//! The walk through one operation: forward step by step, backward when a step fails for good.
//!
//! After every step its outcome is written before the next begins. What cannot be written is not known to have happened:
//! the walk breaks off, and whoever takes the operation next repeats the step.

mod attempt;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder};
use tenancy::Status;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::lease::Lease;
use super::pace::Pace;
use super::runner::count;
use super::steps::{Step, StepError};
use super::work::Work;
use super::{Kind, On, State, StepState};
use crate::audit::Deed;
use crate::plane::Plane;
use crate::registry::change::Change;
use crate::registry::entities::{operation_steps, operations, tenants};

/// How long an operation with steps that this program does not know is left to others.
const LEFT_TO_OTHERS: Duration = Duration::from_secs(30);

/// Works on a leased operation until it has ended, is put off, the lease is lost or the service stops. Answers how soon it
/// is due again, if it was put off.
pub(super) async fn walk(plane: Plane, lease: Lease, pace: Pace, stopping: CancellationToken) -> Option<Duration> {
    let work = Work::new(plane, lease);
    let mut retries = pace.retries();
    let soon = pace.put_off(0);
    let mut walk = Walk {
        work: &work,
        pace,
        stopping,
        steps: Vec::new(),
        is_undoing: false,
        error: None,
        due: None,
        is_alone: false,
    };
    let outcome = work.lease.hold(Box::pin(walk.go())).await;
    work.leave().await;
    match outcome {
        Ok(Ok(())) => return walk.due,
        Ok(Err(Halt::Registry(error))) => {
            tracing::warn!(%error, "the registry failed; whoever takes the operation next goes on");
            // So that nobody has to wait until the lease lapses.
            while let Err(error) = work.lease.release(work.plane.registry.after(soon)).await {
                tracing::debug!(%error, "could not let the lease go");
                let pause = retries.next()?;
                sleep(pause).await;
            }
        }
        Ok(Err(Halt::Lost)) | Err(_) => tracing::warn!("the lease was lost; the work on the operation stops here"),
    }
    None
}

/// Why a walk breaks off without a word in the registry.
enum Halt {
    Lost,
    Registry(DbErr),
}

impl From<DbErr> for Halt {
    fn from(error: DbErr) -> Self {
        Self::Registry(error)
    }
}

/// How an attempt at a step, or at taking it back, ended without it.
enum Unfinished {
    GivenUp(GivenUp),
    /// For others to do something; why, in the step's words.
    Waits(String),
}

/// How a step, or taking it back, was given up.
struct GivenUp {
    text: String,
    /// All that ever were made, with those of earlier leases.
    attempts: i32,
}

enum Next {
    Step,
    /// The operation has ended, or is put off.
    End,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Run,
    Undo,
}

struct Position {
    number: i32,
    step: &'static dyn Step,
    state: StepState,
    attempts: i32,
}

struct Walk<'a> {
    work: &'a Work,
    pace: Pace,
    stopping: CancellationToken,
    steps: Vec<Position>,
    is_undoing: bool,
    /// Why it is undone.
    error: Option<String>,
    /// When it is due again, if it was let go of until then.
    due: Option<Duration>,
    /// The next step shares its commit with none.
    is_alone: bool,
}

impl<'a> Walk<'a> {
    async fn go(&mut self) -> Result<(), Halt> {
        let registry = &self.work.plane.registry;
        let Some(kind) = self.read().await? else {
            tracing::warn!("the operation has steps that this program does not know; it is left to others");
            return Ok(self.work.lease.release(registry.after(LEFT_TO_OTHERS)).await?);
        };
        while !self.stopping.is_cancelled() {
            let next = if self.is_undoing { self.back(kind).await? } else { self.forth(kind).await? };
            if matches!(next, Next::End) {
                return Ok(());
            }
        }
        tracing::info!("the service stops; the operation is left to whoever comes next");
        Ok(self.work.lease.release(Expr::value(self.operation().run_after)).await?)
    }

    fn operation(&self) -> &'a operations::Model {
        self.work.lease.operation()
    }

    /// Reads how far the operation is. None if it has a kind or steps that this program does not know.
    async fn read(&mut self) -> Result<Option<Kind>, DbErr> {
        let operation = self.operation();
        let Ok(kind) = operation.kind.parse::<Kind>() else { return Ok(None) };
        (self.is_undoing, self.error) = (operation.state == State::Undoing.as_str(), operation.error.clone());
        let rows = operation_steps::Entity::find()
            .filter(operation_steps::Column::OperationId.eq(operation.id))
            .order_by_asc(operation_steps::Column::Position)
            .all(self.work.plane.registry.db())
            .await?;
        let on = On::of(operation)?;
        for row in rows {
            let known = kind.steps(on).iter().find(|step| step.name() == row.name);
            let (Some(step), Some(state)) = (known, StepState::of(&row.state)) else { return Ok(None) };
            self.steps.push(Position { number: row.position, step: *step, state, attempts: row.attempts });
        }
        Ok(Some(kind))
    }

    /// Runs the first step that is not done.
    async fn forth(&mut self, kind: Kind) -> Result<Next, Halt> {
        let Some(at) = self.steps.iter().position(|step| step.state != StepState::Done) else {
            let change = self.change().await?;
            return self.end(change, kind, State::Done).await;
        };
        match self.attempt(at, Direction::Run).await? {
            None => Ok(Next::Step),
            Some(Ok(mut change)) => {
                // If what joined failed, it took the change with it: the step once more, and alone.
                let Some(until) = self.join(&mut change, at + 1).await? else { return Ok(Next::Step) };
                self.mark_done(&change, at..until).await?;
                let is_last = until == self.steps.len();
                let next = if is_last { self.end(change, kind, State::Done).await? } else { commit(change).await? };
                for written in at..until {
                    self.reached(written).await;
                }
                Ok(next)
            }
            Some(Err(Unfinished::Waits(text))) => self.wait(at, text).await,
            Some(Err(Unfinished::GivenUp(given_up))) if at < kind.can_be_undone() => self.turn_back(at, given_up).await,
            Some(Err(Unfinished::GivenUp(given_up))) => self.put_off(at, given_up).await,
        }
    }

    /// Takes back the last step that has an effect.
    async fn back(&mut self, kind: Kind) -> Result<Next, Halt> {
        let has_effect = |step: &Position| matches!(step.state, StepState::Done | StepState::Failed);
        let Some(at) = self.steps.iter().rposition(has_effect) else {
            let change = self.change().await?;
            return self.fail(change, kind).await;
        };
        match self.attempt(at, Direction::Undo).await? {
            None => Ok(Next::Step),
            Some(Ok(change)) => {
                let failure = self.error.clone().filter(|_| self.steps[at].state == StepState::Failed);
                self.mark(&change, at, StepState::Undone, failure).await?;
                let is_last = !self.steps.iter().any(has_effect);
                let next = if is_last { self.fail(change, kind).await? } else { commit(change).await? };
                self.reached(at).await;
                Ok(next)
            }
            Some(Err(Unfinished::Waits(text))) => self.wait(at, text).await,
            Some(Err(Unfinished::GivenUp(given_up))) => self.put_off(at, given_up).await,
        }
    }

    /// Writes that a step failed for good, and that the operation is undone from here on.
    async fn turn_back(&mut self, at: usize, given_up: GivenUp) -> Result<Next, Halt> {
        let change = self.change().await?;
        self.mark(&change, at, StepState::Failed, Some(given_up.text.clone())).await?;
        operations::Entity::update_many()
            .col_expr(operations::Column::State, Expr::value(State::Undoing.as_str()))
            .col_expr(operations::Column::Error, Expr::value(given_up.text.as_str()))
            .filter(operations::Column::Id.eq(self.operation().id))
            .exec(change.db())
            .await?;
        change.commit().await?;
        (self.is_undoing, self.error) = (true, Some(given_up.text));
        Ok(Next::Step)
    }

    /// Puts off what must be done and cannot be now, longer each time. It is kept and shown until it is done.
    async fn put_off(&mut self, at: usize, given_up: GivenUp) -> Result<Next, Halt> {
        let pause = self.pace.put_off(given_up.attempts);
        tracing::error!(attempts = given_up.attempts, pause = ?pause, "put off, and tried again: {}", given_up.text);
        self.let_go_until(at, given_up.text, pause).await
    }

    /// Lets go of what waits for others: its place is for work that can be done. Nothing is wrong.
    async fn wait(&mut self, at: usize, text: String) -> Result<Next, Halt> {
        let pause = self.pace.wait(self.steps[at].attempts);
        tracing::debug!(pause = ?pause, "waits: {text}");
        let text = format!("{}: {text}", self.steps[at].step.name());
        self.let_go_until(at, text, pause).await
    }

    async fn let_go_until(&mut self, at: usize, text: String, pause: Duration) -> Result<Next, Halt> {
        let change = self.change().await?;
        let state = self.steps[at].state;
        self.mark(&change, at, state, Some(text.clone())).await?;
        // Why it is undone is what its reader must know first.
        let error = self.error.clone().filter(|_| self.is_undoing).unwrap_or(text);
        self.work.lease.settle();
        let_go(self.operation().id)
            .col_expr(operations::Column::Error, Expr::value(error))
            .col_expr(operations::Column::RunAfter, self.work.plane.registry.after(pause))
            .exec(change.db())
            .await?;
        change.commit().await?;
        self.due = Some(pause);
        Ok(Next::End)
    }

    /// Ends an operation of which nothing is left.
    async fn fail(&self, change: Change, kind: Kind) -> Result<Next, Halt> {
        // Only a tenant that was being created is nothing without the operation.
        tenants::Entity::update_many()
            .col_expr(tenants::Column::Status, Expr::value(Status::Failed.as_str()))
            .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
            .col_expr(tenants::Column::UpdatedAt, Expr::value(self.work.plane.registry.now()))
            .filter(tenants::Column::Id.eq(self.work.tenant_id()))
            .filter(tenants::Column::Status.eq(Status::Provisioning.as_str()))
            .exec(change.db())
            .await?;
        self.end(change, kind, State::Failed).await
    }

    /// Ends the operation in the change of its last step.
    async fn end(&self, mut change: Change, kind: Kind, state: State) -> Result<Next, Halt> {
        let id = self.operation().id;
        let error = self.error.clone().filter(|_| state == State::Failed);
        let (kind_name, state_name) = (kind.as_str(), state.as_str());
        let outcome = serde_json::json!({ "operation": id, "kind": kind_name, "state": state_name, "error": error });
        let on = On::of(self.operation()).map_err(Halt::Registry)?;
        change.audit(Deed::on("operation.ended", on).after(&outcome));
        self.work.lease.settle();
        let_go(id)
            .col_expr(operations::Column::State, Expr::value(state.as_str()))
            .col_expr(operations::Column::Error, Expr::value(error))
            .col_expr(operations::Column::FinishedAt, Expr::value(self.work.plane.registry.now()))
            .exec(change.db())
            .await?;
        change.commit().await?;
        tracing::info!(state = state.as_str(), "the operation has ended");
        count(kind.as_str(), state.as_str());
        if state == State::Done {
            self.work.note_done();
        }
        self.work.plane.wake.tell_end(id);
        // Not before: to make the next takes the server a while, in which it is slower for this one.
        if self.work.took_ready() {
            self.work.plane.restock.notify_one();
        }
        Ok(Next::End)
    }

    /// A change under the lease, for what is written between steps.
    async fn change(&self) -> Result<Change, Halt> {
        self.work.change().await.map_err(|error| match error {
            StepError::Registry(error) => Halt::Registry(error),
            _ => Halt::Lost,
        })
    }

    /// Writes an attempt's outcome.
    async fn mark(&mut self, change: &Change, at: usize, state: StepState, error: Option<String>) -> Result<(), DbErr> {
        let id = self.operation().id;
        let step = &mut self.steps[at];
        (step.state, step.attempts) = (state, step.attempts + 1);
        operation_steps::Entity::update_many()
            .col_expr(operation_steps::Column::State, Expr::value(state.as_str()))
            .col_expr(operation_steps::Column::Attempts, Expr::value(step.attempts))
            .col_expr(operation_steps::Column::Error, Expr::value(error))
            .filter(operation_steps::Column::OperationId.eq(id))
            .filter(operation_steps::Column::Position.eq(step.number))
            .exec(change.db())
            .await?;
        Ok(())
    }

    /// Writes that steps are done which share a commit.
    async fn mark_done(&mut self, change: &Change, steps: std::ops::Range<usize>) -> Result<(), DbErr> {
        let id = self.operation().id;
        let steps = &mut self.steps[steps];
        for step in &mut *steps {
            (step.state, step.attempts) = (StepState::Done, step.attempts + 1);
        }
        operation_steps::Entity::update_many()
            .col_expr(operation_steps::Column::State, Expr::value(StepState::Done.as_str()))
            .col_expr(operation_steps::Column::Attempts, Expr::col(operation_steps::Column::Attempts).add(1))
            .col_expr(operation_steps::Column::Error, Expr::value(None::<String>))
            .filter(operation_steps::Column::OperationId.eq(id))
            .filter(operation_steps::Column::Position.is_in(steps.iter().map(|step| step.number)))
            .exec(change.db())
            .await?;
        Ok(())
    }

    /// A step is written down.
    #[cfg_attr(not(test), allow(clippy::unused_async, reason = "tests break the walk here"))]
    async fn reached(&self, at: usize) {
        tracing::debug!(step = self.steps[at].step.name(), undoing = self.is_undoing, "a step is written down");
        #[cfg(test)]
        self.pace.faults.committed(self.steps[at].step.name(), self.is_undoing).await;
    }
}

async fn commit(change: Change) -> Result<Next, Halt> {
    change.commit().await?;
    Ok(Next::Step)
}

/// An operation that nobody holds. The caller's change checked whose it was.
fn let_go(id: Uuid) -> sea_orm::UpdateMany<operations::Entity> {
    operations::Entity::update_many()
        .col_expr(operations::Column::LeaseHolder, Expr::value(None::<Uuid>))
        .col_expr(operations::Column::LeaseUntil, Expr::value(None::<DateTime<Utc>>))
        .filter(operations::Column::Id.eq(id))
}
