//! How work is announced within a process. An announcement says that there may be news, never what: it can be lost, and a
//! look at the rows every second or so finds what it would have told.

use std::sync::Arc;

use tokio::sync::{Notify, broadcast};
use uuid::Uuid;

/// Ends that a slow waiter may fall behind before it looks at the rows instead.
const ENDS: usize = 256;

/// Wakes the runner of this process; clones are the same bell.
#[derive(Clone)]
pub(crate) struct Wake {
    work: Arc<Notify>,
    ends: broadcast::Sender<Uuid>,
}

impl Default for Wake {
    fn default() -> Self {
        Self { work: Arc::default(), ends: broadcast::Sender::new(ENDS) }
    }
}

impl Wake {
    /// Says that there may be work. Call it after the commit.
    pub(crate) fn ring(&self) {
        self.work.notify_one();
    }

    /// Until somebody rings, or has since the last time.
    pub(super) async fn rung(&self) {
        self.work.notified().await;
    }

    /// Says that an operation may have ended, to those who wait for it here.
    pub(super) fn tell_end(&self, operation: Uuid) {
        // Nobody may be waiting.
        let _ = self.ends.send(operation);
    }

    /// Hears of ends from now on.
    pub(crate) fn ends(&self) -> broadcast::Receiver<Uuid> {
        self.ends.subscribe()
    }
}
