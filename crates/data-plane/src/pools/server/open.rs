//! How connections begin: in a task that no request can cancel, and what follows when one cannot be opened.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt as _;

use super::super::dial::{self, DialError};
use super::super::metrics::Closed;
use super::super::refusal::Refusal;
use super::{Grant, ServerPool};

impl ServerPool {
    pub(super) async fn open(self: Arc<Self>, Grant { pool, replaced, dialled }: Grant) {
        // An additional connection tells whether the server has room. One in the place of another tells whether others took the place.
        let is_added = replaced.is_none();
        if let Some(live) = replaced {
            self.close(live, Closed::Replaced).await;
        }
        let begun = Instant::now();
        let address = Arc::clone(pool.target.address());
        // Its URL may have been replaced meanwhile.
        let is_tried = !pool.is_unused();
        let dialled = if is_tried {
            // Should it panic, its permit comes back all the same.
            let dialling = AssertUnwindSafe(Arc::clone(&pool).dial(dialled)).catch_unwind();
            dialling.await.unwrap_or_else(|_| Err(Arc::new(DialError::Unavailable(None))))
        } else {
            Err(Arc::new(DialError::Unavailable(None)))
        };
        self.metrics.opened(dialled.as_ref().err().map(AsRef::as_ref), begun.elapsed());
        if pool.is_first(dialled.is_ok()) {
            self.metrics.dialled(dialled.is_ok());
        }
        let now = Instant::now();
        let error = match dialled {
            Ok(live) => {
                {
                    let mut state = self.state();
                    state.opening -= 1;
                    state.away.is_back(&address);
                    state.contended.is_back(&address);
                    if is_added {
                        state.full.is_back(&address);
                    }
                }
                pool.opened(live);
                return self.dispatch(now);
            }
            Err(error) => error,
        };
        dial::tell((pool.tenant, pool.generation), &self.name, &error);
        let mut refused = Vec::new();
        let is_retried = {
            let mut state = self.state();
            state.opening -= 1;
            // The server's side of it may still be there.
            state.release(&pool);
            state.closing += 1;
            state.full(is_added).was_not_tried(&address);
            match *error {
                DialError::ServerFull(_) if state.held > 0 => {
                    state.away.is_back(&address);
                    state.full(is_added).failed(&address, &error, now);
                }
                // A full server where this node has no connection is, for this node, as good as away.
                DialError::ServerAway(_) | DialError::ServerFull(_) => {
                    state.away.failed(&address, &error, now);
                    refused = state.queue.take_all_of(&address);
                }
                // The server was not asked.
                DialError::Adrift => state.away.was_not_tried(&address),
                _ if !is_tried => state.away.was_not_tried(&address),
                // It answers.
                _ => state.away.is_back(&address),
            }
            self.settle(&mut state);
            match *error {
                // Where this node has other connections, one of them may give way.
                DialError::ServerFull(_) => state.held > 0,
                // It waits for the anchor, or is told with all others why there is none.
                DialError::Adrift => true,
                _ => false,
            }
        };
        let is_its_own = !error.is_the_servers();
        // The server may still be at work on a dial that was left in the middle.
        let is_left = is_tried
            && matches!(*error, DialError::ServerAway(None) | DialError::Unavailable(None) | DialError::Adrift);
        let refusal = Refusal::NotOpened(error);
        for other in refused.iter().filter(|other| other.open() == 0) {
            other.refuse_all(&refusal);
        }
        if is_retried {
            pool.not_opened();
            if let Err(refusal) = self.ask(&pool, now) {
                pool.refuse_all(&refusal);
            }
        } else {
            pool.failed(&refusal, is_its_own.then_some(self.settings.failed_for));
        }
        self.until_gone(if is_left { Closed::Broken } else { Closed::Spent }).await;
        self.is_closed();
    }
}
