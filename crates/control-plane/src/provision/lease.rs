//! Leases: who works on an operation, until when, and the fencing number that all of its writes carry.
//!
//! A holder that was slow, frozen or cut off may believe that it still works: it never writes, since every write of its
//! checks the number under the operation's row lock, and it stops working once its time has passed by its own clock.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{CaseStatement, Expr, LockType, SimpleExpr};
use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, ExprTrait, QueryFilter, QuerySelect, SqlErr};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::State;
use super::held::may_go_on;
use super::pace::Pace;
use super::steps::StepError;
use crate::registry::Registry;
use crate::registry::change::Change;
use crate::registry::entities::operations;

/// Does work until a moment; none if that came first. A process that was frozen may find its work ready before its timers:
/// time is looked at first.
pub(super) async fn before<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let mut over = pin!(tokio::time::sleep_until(deadline));
    poll_fn(|context| {
        if Instant::now() >= deadline || over.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// The lease is another's, or its time has passed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lost;

/// The right to work on one operation, for a while.
#[derive(Debug)]
pub(super) struct Lease {
    registry: Registry,
    operation: operations::Model,
    holder: Uuid,
    /// Who held it before, and may still be at work on a server.
    before: Option<Uuid>,
    length: Duration,
    heartbeat: Duration,
    /// By this process's monotonic clock, and never later than what the registry says.
    until: Mutex<Instant>,
    is_settled: AtomicBool,
}

/// Not held, and not begun or left by a holder that let it go or whose time has passed.
pub(super) fn is_free(registry: &Registry) -> Condition {
    let begun = [State::Running.as_str(), State::Undoing.as_str()];
    let until = operations::Column::LeaseUntil;
    let left = Condition::all()
        .add(operations::Column::State.is_in(begun))
        .add(Condition::any().add(until.is_null()).add(until.into_expr().lt(registry.present())));
    Condition::all()
        .add(may_go_on())
        .add(Condition::any().add(operations::Column::State.eq(State::Pending.as_str())).add(left))
}

impl Lease {
    /// Takes an operation as it was seen, unless anybody changed it since.
    pub(super) async fn take(
        registry: &Registry,
        holder: Uuid,
        pace: &Pace,
        seen: &operations::Model,
    ) -> Result<Option<Self>, DbErr> {
        let begins = Instant::now();
        let is_pending = operations::Column::State.eq(State::Pending.as_str());
        let state = CaseStatement::new()
            .case(is_pending, Expr::value(State::Running.as_str()))
            .finally(Expr::col(operations::Column::State));
        let taken = operations::Entity::update_many()
            .col_expr(operations::Column::State, state.into())
            .col_expr(operations::Column::LeaseHolder, Expr::value(holder))
            .col_expr(operations::Column::LeaseUntil, registry.after(pace.lease))
            .col_expr(operations::Column::Fence, Expr::col(operations::Column::Fence).add(1))
            .filter(operations::Column::Id.eq(seen.id))
            .filter(operations::Column::Fence.eq(seen.fence))
            .filter(operations::Column::State.eq(seen.state.as_str()))
            .filter(is_free(registry))
            .exec_with_returning(registry.db())
            .await;
        let taken = match taken {
            Ok(taken) => taken.into_iter().next(),
            // Another operation is at work for its tenant.
            Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => None,
            Err(error) => return Err(error),
        };
        Ok(taken.map(|operation| Self {
            registry: registry.clone(),
            operation,
            holder,
            before: seen.lease_holder.filter(|before| *before != holder),
            length: pace.lease,
            heartbeat: pace.heartbeat(),
            until: Mutex::new(begins + pace.lease),
            is_settled: AtomicBool::new(false),
        }))
    }

    /// The operation as it was when it was taken.
    pub(super) const fn operation(&self) -> &operations::Model {
        &self.operation
    }

    /// Who held it before and did not let go of it.
    pub(super) const fn before(&self) -> Option<Uuid> {
        self.before
    }

    /// Begins a change that nobody else's work on this operation can come between: the row is locked, and the number on
    /// it is ours.
    pub(super) async fn change(&self) -> Result<Change, StepError> {
        let change = self.registry.change().await?;
        let ours =
            operations::Entity::find().filter(self.is_ours()).lock(LockType::NoKeyUpdate).one(change.db()).await?;
        if ours.is_some() { Ok(change) } else { Err(StepError::Lost) }
    }

    /// Does work while the lease is renewed, and drops it when the lease is lost.
    pub(super) async fn hold<T>(&self, work: impl Future<Output = T>) -> Result<T, Lost> {
        let mut work = pin!(work);
        // A process that was frozen may find its work ready before its timers: time is looked at first.
        let work =
            poll_fn(
                |context| {
                    if self.has_lapsed() { Poll::Ready(Err(Lost)) } else { work.as_mut().poll(context).map(Ok) }
                },
            );
        tokio::select! {
            biased;
            lost = self.renew() => Err(lost),
            done = work => done,
        }
    }

    /// From here on one last write ends or lets go of the operation: a heartbeat that finds it gone is no alarm.
    pub(super) fn settle(&self) {
        self.is_settled.store(true, Ordering::Relaxed);
    }

    /// Lets go of the operation, due again at `run_after`.
    pub(super) async fn release(&self, run_after: SimpleExpr) -> Result<(), DbErr> {
        self.settle();
        operations::Entity::update_many()
            .col_expr(operations::Column::LeaseHolder, Expr::value(None::<Uuid>))
            .col_expr(operations::Column::LeaseUntil, Expr::value(None::<DateTime<Utc>>))
            .col_expr(operations::Column::RunAfter, run_after)
            .filter(self.is_ours())
            .exec(self.registry.db())
            .await?;
        Ok(())
    }

    /// Nobody took it over, and it is not held: a holder stops when another epoch begins.
    fn is_ours(&self) -> Condition {
        Condition::all()
            .add(may_go_on())
            .add(operations::Column::Id.eq(self.operation.id))
            .add(operations::Column::Fence.eq(self.operation.fence))
            .add(operations::Column::LeaseHolder.eq(self.holder))
    }

    fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_lapsed(&self) -> bool {
        Instant::now() >= self.until()
    }

    /// Renews until the lease is lost. A registry that does not answer is asked again until the time is over.
    async fn renew(&self) -> Lost {
        let mut pause = self.heartbeat;
        loop {
            sleep(pause.min(self.until().saturating_duration_since(Instant::now()))).await;
            if self.has_lapsed() {
                return Lost;
            }
            let begins = Instant::now();
            let renewed = operations::Entity::update_many()
                .col_expr(operations::Column::LeaseUntil, self.registry.after(self.length))
                .filter(self.is_ours())
                .exec(self.registry.db());
            match timeout_at(self.until(), renewed).await {
                Ok(Ok(renewed)) if renewed.rows_affected > 0 => {
                    *self.until.lock().unwrap_or_else(PoisonError::into_inner) = begins + self.length;
                    pause = self.heartbeat;
                }
                Ok(Ok(_)) if self.is_settled.load(Ordering::Relaxed) => std::future::pending().await,
                Ok(Ok(_)) | Err(_) => return Lost,
                Ok(Err(error)) => {
                    tracing::warn!(operation = %self.operation.id, %error, "could not renew a lease");
                    pause = self.heartbeat / 4;
                }
            }
        }
    }
}
