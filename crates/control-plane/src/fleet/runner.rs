//! The runner: takes targets of rollouts that go on, works on several at once, writes down what came of them, and moves
//! rollouts on of which nothing is to be taken.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use sea_orm::DbErr;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use uuid::Uuid;

use super::held::{Held, Kept};
use super::record::{self, record};
use super::target::{End, Outcome, jobs};
use super::{conduct, take};
use crate::plane::Plane;

/// How often it is looked for targets that nobody takes any more.
const SWEEP: Duration = Duration::from_secs(5);
/// How long what ended waits for others that end: they are written down, and what is next is taken, for all of them at once.
const LINGER: Duration = Duration::from_millis(100);
/// The longest pause after looks that failed.
const LONGEST: Duration = Duration::from_secs(10);

/// The times and numbers that a runner keeps.
#[derive(Clone)]
pub(super) struct Pace {
    /// How long a lease lasts without a heartbeat: a dead holder's targets are taken over after that.
    pub(super) lease: Duration,
    /// How long one look is from the next when nothing tells of news.
    pub(super) scan: Duration,
    /// Targets that one control plane works on at once.
    pub(super) at_once: usize,
    /// Where a test stops the work.
    #[cfg(test)]
    pub(super) stops: super::tests::Stops,
}

impl Pace {
    pub(super) fn of(lease: Duration) -> Self {
        Self {
            lease,
            scan: Duration::from_millis(500),
            at_once: 64,
            #[cfg(test)]
            stops: super::tests::Stops::default(),
        }
    }
}

/// Works on rollouts until told to stop; then what is at hand is finished, for as long as a service drains, and the rest left to the
/// others.
pub(crate) async fn run(plane: Plane, stopping: CancellationToken) {
    let pace = Pace::of(plane.lease);
    run_at(plane, pace, stopping).await;
}

/// As [`run`], at another pace.
pub(super) async fn run_at(plane: Plane, pace: Pace, stopping: CancellationToken) {
    let held = Held::new(pace.lease);
    let heartbeat = heartbeat(&plane, &held, pace.lease);
    tokio::select! {
        () = Runner::new(plane.clone(), held.clone(), pace.clone()).run(stopping) => {}
        never = heartbeat => match never {},
    }
}

/// Renews this process' leases.
async fn heartbeat(plane: &Plane, held: &Held, lease: Duration) -> std::convert::Infallible {
    let mut ticks = interval(lease / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        held.look();
        let begun = Instant::now();
        match timeout(lease / 3, take::renew(plane, held.at_work(), lease)).await {
            Ok(Ok(())) => held.renewed(begun, lease),
            Ok(Err(error)) => tracing::warn!(%error, "could not renew the leases of a rollout's targets"),
            Err(_) => tracing::warn!("could not renew the leases of a rollout's targets in time"),
        }
    }
}

struct Runner {
    plane: Plane,
    held: Held,
    pace: Pace,
    /// Dropped with this: whoever ends the runner ends its work.
    at_work: JoinSet<Option<(Outcome, Kept)>>,
    /// What is not written down yet.
    ended: Vec<(Outcome, Kept)>,
    counted: Counter<u64>,
    /// When it was last looked for what nobody takes any more.
    swept: Instant,
}

impl Runner {
    fn new(plane: Plane, held: Held, pace: Pace) -> Self {
        let counted = opentelemetry::global::meter("control-plane")
            .u64_counter("rollout_targets_ended")
            .with_description("Attempts at targets of rollouts, by what came of them.")
            .build();
        Self { plane, held, pace, at_work: JoinSet::new(), ended: Vec::new(), counted, swept: Instant::now() }
    }

    async fn run(mut self, stopping: CancellationToken) {
        let mut failures = 0_u32;
        while !stopping.is_cancelled() {
            let pause = match self.step().await {
                Ok(true) => {
                    failures = 0;
                    continue;
                }
                Ok(false) => {
                    failures = 0;
                    self.pace.scan
                }
                Err(error) => {
                    tracing::warn!(%error, "could not go on with rollouts");
                    failures = failures.saturating_add(1);
                    self.pace.scan.saturating_mul(1 << failures.min(6)).min(LONGEST)
                }
            };
            tokio::select! {
                () = stopping.cancelled() => {}
                () = self.plane.fleet.notified() => {}
                Some(ended) = self.at_work.join_next() => {
                    self.note(ended);
                    self.gather().await;
                }
                () = sleep(pause) => {}
            }
        }
        self.drain().await;
    }

    /// Waits for more that ends, while most are at work still: a step asks the registry as much for one as for many, and that
    /// is more than a short migration asks of its database.
    async fn gather(&mut self) {
        let deadline = Instant::now() + LINGER;
        while self.ended.len() < self.at_work.len() {
            let Ok(Some(ended)) = timeout_at(deadline, self.at_work.join_next()).await else { break };
            self.note(ended);
        }
    }

    /// What was begun is finished and written down: nobody has to wait until its lease is over.
    async fn drain(&mut self) {
        while let Some(ended) = self.at_work.join_next().await {
            self.note(ended);
        }
        if let Err(error) = self.write_down().await {
            tracing::warn!(%error, "what came of the last targets was not written down: another control plane looks");
        }
    }

    /// Writes down what ended, takes what is next, and moves rollouts on of which nothing is to be taken; answers whether there may be
    /// more to take at once.
    async fn step(&mut self) -> Result<bool, DbErr> {
        while let Some(ended) = self.at_work.try_join_next() {
            self.note(ended);
        }
        self.write_down().await?;
        let mut is_news = false;
        if self.swept.elapsed() >= SWEEP {
            self.swept = Instant::now();
            take::sweep(&self.plane).await?;
        }
        let running = take::running(&self.plane).await?;
        for rollout in running {
            // What is wrong with one is nothing to the others.
            match self.go_on(rollout).await {
                Ok(moved) => is_news |= moved,
                Err(error) => tracing::warn!(%rollout, %error, "could not go on with a rollout"),
            }
        }
        Ok(is_news)
    }

    /// Begins targets of one rollout, or moves it on where none is to be begun.
    async fn go_on(&mut self, rollout: Uuid) -> Result<bool, DbErr> {
        let free = self.pace.at_once.saturating_sub(self.at_work.len());
        if free > 0 && self.begin(rollout, free).await? {
            // Its wave is at work.
            return Ok(false);
        }
        conduct::conduct(&self.plane, rollout).await
    }

    /// Begins so many targets of a rollout at most; answers whether it began any.
    async fn begin(&mut self, rollout: Uuid, at_most: usize) -> Result<bool, DbErr> {
        let term = self.held.take(self.pace.lease);
        let Some(taken) = take::take(&self.plane, rollout, at_most, self.pace.lease).await? else { return Ok(false) };
        if taken.targets.is_empty() {
            return Ok(false);
        }
        // From here on each is renewed: reading what the work needs takes its time.
        let mut kept: HashMap<Uuid, Kept> =
            taken.targets.iter().map(|(it, _)| (it.tenant_id, self.held.keep(it.tenant_id))).collect();
        for job in jobs(&self.plane, taken).await? {
            let (plane, held) = (self.plane.clone(), self.held.clone());
            let span = tracing::info_span!("target", rollout = %rollout, tenant = %job.target.tenant_id,
                fence = job.target.fence);
            #[cfg(test)]
            let stops = self.pace.stops.clone();
            let Some(kept) = kept.remove(&job.target.tenant_id) else { continue };
            let work = async move {
                let work = async {
                    tracing::debug!("a target begins");
                    #[cfg(test)]
                    stops.meet("taken").await;
                    let outcome = job.attempt(&plane).await;
                    tracing::debug!("a target has ended");
                    #[cfg(test)]
                    stops.meet("migrated").await;
                    outcome
                };
                Box::pin(held.hold(term, work)).await.map(|outcome| (outcome, kept))
            };
            self.at_work.spawn(work.instrument(span));
        }
        Ok(true)
    }

    fn note(&mut self, ended: Result<Option<(Outcome, Kept)>, tokio::task::JoinError>) {
        match ended {
            Ok(Some(ended)) => self.ended.push(ended),
            Ok(None) => {
                tracing::warn!("the lease on a rollout's target was lost: another control plane goes on with it");
            }
            Err(error) => tracing::error!(%error, "the work on a target broke off"),
        }
    }

    async fn write_down(&mut self) -> Result<(), DbErr> {
        while !self.ended.is_empty() {
            let some = self.ended.len().min(record::AT_ONCE);
            let outcomes = self.ended[..some].iter().map(|(outcome, _)| outcome);
            record(&self.plane, outcomes).await?;
            tracing::debug!("targets are written down");
            #[cfg(test)]
            self.pace.stops.meet("recorded").await;
            for (outcome, _) in self.ended.drain(..some) {
                let end = match outcome.end {
                    End::Done => "done",
                    End::Failed(_) => "failed",
                    End::Again(_) => "again",
                    End::Skipped(_) => "skipped",
                };
                self.counted.add(1, &[KeyValue::new("outcome", end)]);
            }
        }
        Ok(())
    }
}
