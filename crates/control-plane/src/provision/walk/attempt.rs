//! One step: tried until it succeeds or is given up, alone or in the change of the step before it.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use tokio::time::{sleep, timeout};

use super::{Direction, GivenUp, Halt, Unfinished, Walk};
use crate::provision::steps::StepError;
use crate::registry::change::Change;

impl Walk<'_> {
    /// Tries a step until it succeeds or is given up. None: the service stops.
    pub(super) async fn attempt(
        &mut self,
        at: usize,
        direction: Direction,
    ) -> Result<Option<Result<Change, Unfinished>>, Halt> {
        let name = self.steps[at].step.name();
        let mut retries = self.pace.retries();
        loop {
            let (text, source, may_pass) = match self.attempt_once(at, direction).await {
                Ok(change) => return Ok(Some(Ok(change))),
                Err(StepError::Lost) => return Err(Halt::Lost),
                Err(StepError::Registry(error)) if service::problem::is_unavailable(&error) => {
                    return Err(Halt::Registry(error));
                }
                Err(StepError::Registry(error)) => {
                    let text = "the registry refused a statement; the control plane's log has its words";
                    (text.to_owned(), Some(error.into()), true)
                }
                Err(StepError::Waiting { text }) => return Ok(Some(Err(Unfinished::Waits(text)))),
                Err(StepError::Unavailable { text, source }) => {
                    self.work.note_silence();
                    (text, source, true)
                }
                Err(StepError::Refused { text, source }) => (text, source, false),
            };
            let undo = if direction == Direction::Undo { "undo " } else { "" };
            let text = format!("{undo}{name}: {text}");
            let attempts = self.steps[at].attempts + 1;
            tracing::warn!(attempts, source = source.map(tracing::field::display), "a step failed: {text}");
            self.work.leave().await;
            let retry = if may_pass { retries.next() } else { None };
            let Some(pause) = retry else { return Ok(Some(Err(Unfinished::GivenUp(GivenUp { text, attempts })))) };
            let change = self.change().await?;
            let state = self.steps[at].state;
            self.mark(&change, at, state, Some(text)).await?;
            change.commit().await?;
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stopping.cancelled() => return Ok(None),
            }
        }
    }

    async fn attempt_once(&self, at: usize, direction: Direction) -> Result<Change, StepError> {
        let step = self.steps[at].step;
        tracing::debug!(step = step.name(), undoing = direction == Direction::Undo, "a step begins");
        let attempt = async {
            #[cfg(test)]
            self.pace
                .faults
                .meet(step.name(), direction == Direction::Undo, crate::provision::faults::Side::Before)
                .await?;
            self.work.be_alone().await?;
            match direction {
                Direction::Run => step.run(self.work).await,
                Direction::Undo => step.undo(self.work).await,
            }?;
            let mut change = self.work.change().await?;
            match direction {
                Direction::Run => step.record(self.work, &mut change).await,
                Direction::Undo => step.record_undo(self.work, &mut change).await,
            }?;
            #[cfg(test)]
            self.pace
                .faults
                .meet(step.name(), direction == Direction::Undo, crate::provision::faults::Side::Effect)
                .await?;
            Ok(change)
        };
        self.guarded(attempt).await
    }

    /// In bounded time. A panic is the failure of this step: it holds nothing that others look into, and its change is
    /// rolled back.
    async fn guarded<T>(&self, work: impl Future<Output = Result<T, StepError>>) -> Result<T, StepError> {
        match timeout(self.pace.attempt, AssertUnwindSafe(work).catch_unwind()).await {
            Ok(Ok(outcome)) => outcome,
            Err(_) => Err(StepError::unavailable("the server did not answer in time")),
            Ok(Err(_)) => Err(StepError::refused("the step panicked; the control plane's log has its words")),
        }
    }

    /// Does steps that have nothing to do outside of the registry in the change of the step before them; answers the first
    /// that did not join. None: one of them failed, and the change is void.
    pub(super) async fn join(&mut self, change: &mut Change, from: usize) -> Result<Option<usize>, Halt> {
        let mut at = from;
        while at < self.steps.len() && !self.is_alone {
            let joined = self.guarded(self.join_one(change, at)).await;
            match joined {
                Ok(true) => at += 1,
                Ok(false) => break,
                Err(StepError::Lost) => return Err(Halt::Lost),
                Err(error) => {
                    tracing::debug!(
                        ?error,
                        step = self.steps[at].step.name(),
                        "a step could not join the one before it"
                    );
                    self.is_alone = true;
                    return Ok(None);
                }
            }
        }
        self.is_alone = false;
        Ok(Some(at))
    }

    async fn join_one(&self, change: &mut Change, at: usize) -> Result<bool, StepError> {
        let step = self.steps[at].step;
        if !step.joins(self.work, change).await? {
            return Ok(false);
        }
        tracing::debug!(step = step.name(), undoing = false, "a step begins");
        #[cfg(test)]
        self.pace.faults.meet(step.name(), false, crate::provision::faults::Side::Before).await?;
        step.record(self.work, change).await?;
        #[cfg(test)]
        self.pace.faults.meet(step.name(), false, crate::provision::faults::Side::Effect).await?;
        Ok(true)
    }
}
