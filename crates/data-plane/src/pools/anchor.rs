//! The anchor: a session by which a server shows that this node lives. Connections are opened only while it answers.
//!
//! Once the server has no anchor of this node and lets none begin, what this node has there goes to others. So each step of
//! a dial looks at the clock first: a process that was stopped and goes on sends nothing more.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::{ConnectOptions as _, PgConnection};
use secrecy::{ExposeSecret as _, SecretString};
use tenancy::seal::{KeyRing, Sealed};
use tenancy::share::anchor_name;
use uuid::Uuid;

use super::dial::{DialError, address_of, open};

/// How long after a round trip was begun that succeeded connections are opened.
const LIVES: Duration = Duration::from_secs(1);
/// No anchor is needed.
const FREE: u64 = u64::MAX;

/// Until when connections may be opened to one server.
#[derive(Debug)]
pub(super) struct Lifeline {
    made: Instant,
    /// Microseconds after `made`.
    until: AtomicU64,
}

impl Lifeline {
    /// Of a server: nothing is opened there before its anchor has answered.
    pub(super) fn of_server() -> Self {
        Self { made: Instant::now(), until: AtomicU64::new(0) }
    }

    /// Of files, which have no anchor.
    pub(super) fn of_files() -> Self {
        Self { made: Instant::now(), until: AtomicU64::new(FREE) }
    }

    /// A round trip that was begun at this moment succeeded: the server had the session later than that.
    pub(super) fn prove(&self, begun: Instant) {
        let until = begun.saturating_duration_since(self.made) + LIVES;
        self.until.store(u64::try_from(until.as_micros()).unwrap_or(FREE - 1), Ordering::SeqCst);
    }

    /// Whether a round trip succeeded that was begun at this moment or later.
    pub(super) fn is_proven_since(&self, moment: Instant) -> bool {
        let until = moment.saturating_duration_since(self.made) + LIVES;
        u128::from(self.until.load(Ordering::SeqCst)) >= until.as_micros()
    }

    /// The anchor is given up.
    pub(super) fn cut(&self) {
        if self.until.load(Ordering::SeqCst) != FREE {
            self.until.store(0, Ordering::SeqCst);
        }
    }

    /// How long connections may still be opened.
    pub(super) fn left(&self) -> Duration {
        match self.until.load(Ordering::SeqCst) {
            FREE => Duration::MAX,
            until => Duration::from_micros(until).saturating_sub(self.made.elapsed()),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        !self.left().is_zero()
    }

    /// Goes on with something for as long as connections may be opened. It is dropped as soon as they may not.
    pub(super) async fn guard<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let over = async {
            loop {
                match self.left() {
                    Duration::ZERO => return,
                    left => tokio::time::sleep(left.min(LIVES)).await,
                }
            }
        };
        let (mut over, mut work) = (pin!(over), pin!(work));
        poll_fn(|context| {
            // By the clock, and before anything is sent: timers come late to a process that was stopped.
            if !self.is_alive() || over.as_mut().poll(context).is_ready() {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(Some)
        })
        .await
    }
}

/// How the anchor of one server is opened.
pub(super) struct Anchor {
    pub(super) id: Uuid,
    ring: Arc<KeyRing>,
    sealed: Sealed,
    /// Host and port of the server.
    pub(super) address: Arc<str>,
}

impl Anchor {
    /// An anchor as the control plane told it, if this node can open its URL.
    pub(super) fn of(ring: &Arc<KeyRing>, told: &tenancy::share::Anchor) -> Result<Self, DialError> {
        let url = opened(ring, told.id, &told.sealed_url)?;
        let address = address_of(&url)?;
        Ok(Self { id: told.id, ring: Arc::clone(ring), sealed: told.sealed_url.clone(), address })
    }

    /// Opens it, within this time.
    pub(super) async fn dial(&self, within: Duration, holder: Uuid) -> Result<PgConnection, DialError> {
        let url = opened(&self.ring, self.id, &self.sealed)?;
        let failed = |error| DialError::of(error, false);
        let options: PgConnectOptions = url.expose_secret().parse().map_err(failed)?;
        // No parameter that a pooler does not know: it would take no connection.
        let options = options.application_name(&anchor_name(holder)).extra_float_digits(None);
        let options = options.disable_statement_logging();
        let connected = tokio::time::timeout(within, options.connect()).await;
        connected.map_err(|_| DialError::ServerAway(None))?.map_err(failed)
    }
}

fn opened(ring: &KeyRing, id: Uuid, sealed: &Sealed) -> Result<SecretString, DialError> {
    open(ring, tenancy::share::Anchor::subject(id), sealed)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    #[tokio::test]
    async fn what_needs_an_anchor_goes_on_only_while_it_lives() {
        assert_eq!(Lifeline::of_files().guard(async { 1 }).await, Some(1), "none is needed");
        let lifeline = Lifeline::of_server();
        assert_eq!(lifeline.guard(async { 2 }).await, None, "none was heard of yet");
        lifeline.prove(Instant::now());
        assert_eq!(lifeline.guard(async { 3 }).await, Some(3));
        assert_eq!(lifeline.guard(std::future::pending::<()>()).await, None, "it is dropped when its time is over");
        lifeline.prove(Instant::now());
        lifeline.cut();
        assert!(!lifeline.is_alive());
        let begun = Instant::now();
        lifeline.prove(begun);
        assert!(lifeline.is_proven_since(begun) && !lifeline.is_proven_since(begun + Duration::from_micros(2)));
    }

    #[tokio::test]
    async fn a_process_that_was_stopped_goes_on_with_no_dial() {
        let (lifeline, is_sent) = (Lifeline::of_server(), AtomicBool::new(false));
        lifeline.prove(Instant::now());
        let dial = async {
            tokio::task::yield_now().await;
            is_sent.store(true, Ordering::SeqCst);
        };
        let mut guarded = pin!(lifeline.guard(dial));
        assert_eq!(poll_fn(|context| Poll::Ready(guarded.as_mut().poll(context))).await, Poll::Pending);
        // Its time is over, and no timer has said so.
        lifeline.until.store(1, Ordering::SeqCst);
        assert_eq!(poll_fn(|context| Poll::Ready(guarded.as_mut().poll(context))).await, Poll::Ready(None));
        assert!(!is_sent.load(Ordering::SeqCst));
    }
}
