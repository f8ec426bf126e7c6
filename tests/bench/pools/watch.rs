//! The server's own word on how many connections all data planes have: looked at all the time, the most is kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, Statement};
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
    pub(super) async fn start(url: &str) -> Self {
        let db = Database::connect(url).await.unwrap();
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

/// A number that a server tells.
pub(super) async fn number(db: &DatabaseConnection, sql: &str) -> i64 {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    row.unwrap().try_get_by_index(0).unwrap()
}
