//! How connections end: each permit comes back when the server's side is gone.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::super::metrics::Closed;
use super::super::tenant::{Live, TenantPool};
use super::ServerPool;
use super::moor::LEFT_FOR;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long a connection to a file is idle before it frees memory. The next statement reads its pages from the system's cache.
const RESTS_AFTER: Duration = Duration::from_secs(2);

impl ServerPool {
    /// A permit is back, after [`Self::until_gone`].
    pub(super) fn is_closed(self: &Arc<Self>) {
        {
            let mut state = self.state();
            state.closing -= 1;
            state.left -= u32::from(!self.is_of_files);
            self.settle(&mut state);
        }
        self.dispatch(Instant::now());
    }

    /// Closes a connection for good. Its permit comes back once the server's side is gone.
    pub(in super::super) fn discard(self: &Arc<Self>, pool: &TenantPool, live: Live, why: Closed) {
        {
            let mut state = self.state();
            state.release(pool);
            state.closing += 1;
            self.settle(&mut state);
        }
        self.bury(live, why);
    }

    pub(super) fn bury(self: &Arc<Self>, live: Live, why: Closed) {
        self.metrics.closed(why);
        let server = Arc::clone(self);
        self.runtime.spawn(async move {
            server.close(live, why).await;
            server.is_closed();
        });
    }

    /// Closes a connection, and waits until the server's side is gone too: until then this node dials with its URL.
    pub(super) async fn close(&self, live: Live, why: Closed) {
        let (connection, _dialled) = live.into_parts();
        if why == Closed::Broken {
            // What it was in the middle of ends with the socket, or, of a file, by itself: until then its thread is there.
            if let Err(error) = connection.give_up().await {
                tracing::debug!(%error, "a connection that was given up did not close cleanly");
            }
        } else if let Ok(Err(error)) = tokio::time::timeout(GOODBYE, connection.close()).await {
            tracing::debug!(%error, "a connection did not close cleanly");
        }
        match why {
            // The dial that follows finds out whether the server can be reached.
            Closed::Replaced if !self.is_of_files => tokio::time::sleep(self.settings.lag(why)).await,
            _ => self.until_gone(why).await,
        }
    }

    /// Waits until the server's side of what was closed here is gone: for a moment, and until the anchor has answered since. Where
    /// the network is gone, the server hears of no end, and finds out by itself in the end.
    pub(super) async fn until_gone(&self, why: Closed) {
        if self.is_of_files {
            return;
        }
        let closed = Instant::now();
        self.state().left += 1;
        tokio::time::sleep(self.settings.lag(why)).await;
        let _ = tokio::time::timeout(LEFT_FOR, self.until_proven_since(closed)).await;
    }

    async fn until_proven_since(&self, moment: Instant) {
        self.calls.needed.notify_one();
        loop {
            let mut proven = pin!(self.calls.proven.notified());
            // It hears of each proof from here on.
            proven.as_mut().enable();
            if self.lifeline.is_proven_since(moment) {
                return;
            }
            proven.await;
        }
    }

    /// Closes what was idle for too long, or has lived its time.
    pub(in super::super) fn reap(self: &Arc<Self>, now: Instant) {
        let idle_since = now.checked_sub(self.settings.idle).unwrap_or(self.made);
        let members: Vec<_> = self.state().members.values().cloned().collect();
        for pool in members {
            for live in pool.take_stale(idle_since, now) {
                self.discard(&pool, live, Closed::Idle);
            }
        }
        self.drift();
        self.state().queue.tidy();
        // Tenants whose wake-up was lost are served now.
        self.dispatch(now);
    }

    /// Has idle connections to files free memory, until told to stop. Ends early where a disk does not answer.
    pub(in super::super) async fn rest(&self, now: Instant, stopping: &CancellationToken) {
        let Some(unused_since) = now.checked_sub(RESTS_AFTER).filter(|_| self.is_of_files) else { return };
        let members: Vec<_> = self.state().members.values().cloned().collect();
        for pool in members {
            if !pool.rest(unused_since, stopping).await {
                return;
            }
        }
    }
}
