//! The server's own word on how many connections all data planes have: looked at all the time, the most is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use end_to_end::postgres::{Postgres, number};
use tokio::task::JoinHandle;

const OURS: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'freehold-data-plane%'";
/// Between two looks: each costs the server as much as some requests.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until it is dropped.
pub(super) struct Watch {
    most: Arc<AtomicI64>,
    looks: Arc<AtomicU64>,
    looking: JoinHandle<()>,
}

impl Watch {
    pub(super) async fn start(server: &Postgres) -> Self {
        let db = server.look("postgres").await;
        let (most, looks) = (Arc::<AtomicI64>::default(), Arc::<AtomicU64>::default());
        let (seen, counted) = (Arc::clone(&most), Arc::clone(&looks));
        let looking = tokio::spawn(async move {
            loop {
                seen.fetch_max(number(&db, OURS).await, Ordering::Relaxed);
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
        });
        Self { most, looks, looking }
    }

    /// The most that was seen since this was asked last, and how often it was looked.
    pub(super) fn take_most(&self) -> (u32, u64) {
        assert!(!self.looking.is_finished(), "the watch on the server has ended");
        let most = self.most.swap(0, Ordering::Relaxed);
        (u32::try_from(most).unwrap(), self.looks.swap(0, Ordering::Relaxed))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.looking.abort();
    }
}
