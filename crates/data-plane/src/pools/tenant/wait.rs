//! How a statement comes to a connection: an idle one at once, else it waits its turn, and asks for another one from time to time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::checkout::Checkout;
use super::super::dial::DialError;
use super::super::refusal::Refusal;
use super::{Answer, MOST_TO_A_FILE, TenantPool};

/// How long a statement waits for a connection of its tenant's before another is asked for: about what it takes to open one.
const GRACE: Duration = Duration::from_millis(5);
/// The longest pause between two times that it is asked for.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// A connection that was idle for this long is tested before its next use.
const TEST_AFTER: Duration = Duration::from_secs(5);
/// How long such a test may take.
const TEST_WITHIN: Duration = Duration::from_secs(1);

enum Taken {
    Idle(Checkout),
    Waits(oneshot::Receiver<Answer>),
}

impl TenantPool {
    pub(super) async fn checkout(self: &Arc<Self>) -> Result<Checkout, Refusal> {
        loop {
            let now = Instant::now();
            let mut checkout = match self.take(now)? {
                Taken::Idle(checkout) => checkout,
                // It was in use, or opened, a moment ago.
                Taken::Waits(answer) => return self.wait(answer).await,
            };
            let used = checkout.used();
            let is_doubtful = now.saturating_duration_since(used) >= TEST_AFTER || self.server.is_suspect(used);
            if !is_doubtful || checkout.test(TEST_WITHIN).await {
                return Ok(checkout);
            }
            // Its drop discards what failed the test; the next one is no older, or a new one.
        }
    }

    fn take(self: &Arc<Self>, now: Instant) -> Result<Taken, Refusal> {
        let mut state = self.state();
        state.usefulness.note(now);
        if let Some(mut live) = state.idle.pop() {
            live.in_row_since = now;
            return Ok(Taken::Idle(Checkout::new(Arc::clone(self), live)));
        }
        if let Some((until, error)) = &state.failed {
            if now < *until {
                return Err(Refusal::NotOpened(Arc::clone(error)));
            }
            state.failed = None;
        }
        // Statements that were given up are forgotten here at the latest.
        while state.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            state.waiting.pop_front();
        }
        let (sender, answer) = oneshot::channel();
        state.waiting.push_back(sender);
        Ok(Taken::Waits(answer))
    }

    async fn wait(self: &Arc<Self>, mut answer: oneshot::Receiver<Answer>) -> Result<Checkout, Refusal> {
        let _waits = self.server.waiting.begin();
        let begun = Instant::now();
        let deadline = begun + self.server.settings.wait;
        // The first connection is asked for at once.
        let mut ask_at = if self.open() == 0 { begun } else { begun + GRACE };
        let mut pause = GRACE;
        loop {
            let until = Ord::min(ask_at, deadline);
            if until > begun {
                match tokio::time::timeout_at(until.into(), &mut answer).await {
                    Ok(Ok(answer)) => {
                        self.server.metrics.waited(begun.elapsed());
                        return answer.inspect_err(|refusal| self.server.metrics.refused(refusal));
                    }
                    Ok(Err(_)) => return Err(Refusal::ServerBusy),
                    Err(_) => {}
                }
            }
            let now = Instant::now();
            if now >= deadline {
                let most = self.most();
                let refusal = if self.open() == 0 && self.server.is_adrift() {
                    Refusal::NotOpened(Arc::new(DialError::Adrift))
                } else if self.open() < most {
                    Refusal::ServerBusy
                } else if self.is_of_a_file() && most == MOST_TO_A_FILE {
                    Refusal::FileExhausted(most)
                } else {
                    Refusal::PoolExhausted(most)
                };
                self.server.metrics.waited(begun.elapsed());
                self.server.metrics.refused(&refusal);
                return Err(refusal);
            }
            self.server.ask(self, now)?;
            ask_at = now + pause;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
