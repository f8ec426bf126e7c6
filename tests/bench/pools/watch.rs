//! Counts a server's connections all the time, as the server itself shows them, and keeps the most: those of all data planes, and
//! those of all others that are not superusers'.
//!
//! It counts in a thread of its own. The bench's thread waits while a data plane stops or starts, and that is when one could have
//! too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use end_to_end::postgres::Postgres;
use sea_orm::{ConnectOptions, ConnectionTrait as _, Statement};
use tokio::runtime::Builder;

/// The server's one superuser is `admin`: `leave_only` in `town.rs` makes sure of that.
const COUNT: &str = "SELECT count(*) FILTER (WHERE application_name LIKE 'freehold-data-plane%'), \
    count(*) FILTER (WHERE application_name NOT LIKE 'freehold-data-plane%' AND usename <> 'admin') \
    FROM pg_stat_activity WHERE backend_type = 'client backend'";
/// Between two looks: each costs the server as much as some requests.
const PAUSE: Duration = Duration::from_millis(20);

/// What was seen since it was asked for last.
#[derive(Default)]
struct Seen {
    ours: AtomicI64,
    others: AtomicI64,
    looks: AtomicU64,
    is_over: AtomicBool,
}

/// Looks until it is dropped.
pub(super) struct Watch {
    seen: Arc<Seen>,
    looking: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(server: &Postgres) -> Self {
        let (seen, url) = (Arc::<Seen>::default(), server.url());
        let shared = Arc::clone(&seen);
        let looking = std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(look(&url, &shared));
        });
        Self { seen, looking: Some(looking) }
    }

    /// The most connections of data planes that were seen since this was asked last, and how many looks there were.
    pub(super) fn take_most(&self) -> (u32, u64) {
        (self.take(&self.seen.ours), self.seen.looks.swap(0, Ordering::Relaxed))
    }

    /// The most connections of all others that were seen since this was asked last. Superusers' own do not count.
    pub(super) fn take_others(&self) -> u32 {
        self.take(&self.seen.others)
    }

    fn take(&self, most: &AtomicI64) -> u32 {
        let goes_on = self.looking.as_ref().is_some_and(|looking| !looking.is_finished());
        assert!(goes_on, "the watch on the server has ended");
        u32::try_from(most.swap(0, Ordering::Relaxed)).unwrap()
    }
}

async fn look(url: &str, seen: &Seen) {
    let mut options = ConnectOptions::new(url);
    options.max_connections(1).sqlx_logging(false);
    let db = service::pool::open(options).await.unwrap();
    while !seen.is_over.load(Ordering::Relaxed) {
        let statement = Statement::from_string(db.get_database_backend(), COUNT);
        let row = db.query_one_raw(statement).await.unwrap().unwrap();
        for (at, most) in [&seen.ours, &seen.others].into_iter().enumerate() {
            most.fetch_max(row.try_get_by_index(at).unwrap(), Ordering::Relaxed);
        }
        seen.looks.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PAUSE).await;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.seen.is_over.store(true, Ordering::Relaxed);
        if let Some(looking) = self.looking.take() {
            let _ = looking.join();
        }
    }
}
