//! The bound: a trace of tenants replayed by bare connections, which open and close as a policy says that was worked out before.
//!
//! No HTTP, no names, no credentials: connections, the statement, and the same rate at which connections may be opened.

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tokio::sync::Notify;

use super::trace::Step;

/// The pet list's own statement.
pub(super) const LIST: &str = "SELECT \"pets\".\"id\", \"pets\".\"name\", \"pets\".\"species\", \"pets\".\"breed\", \
    \"pets\".\"created_at\", \"pets\".\"deleted_at\" FROM \"pets\" WHERE \"pets\".\"deleted_at\" IS NULL \
    ORDER BY \"pets\".\"id\" ASC LIMIT $1";
/// Requests at most between the oldest that is not answered and the newest that was begun: as many as there are clients.
const WINDOW: usize = 256;

/// Which requests are done, so that no connection runs ahead of what clients could have asked.
struct Window {
    done: RefCell<Vec<bool>>,
    first_open: Cell<usize>,
    moved: Notify,
}

impl Window {
    async fn enter(&self, at: usize) {
        loop {
            let moved = self.moved.notified();
            if at < self.first_open.get() + WINDOW {
                return;
            }
            moved.await;
        }
    }

    fn leave(&self, at: usize) {
        let mut done = self.done.borrow_mut();
        done[at] = true;
        let before = self.first_open.get();
        let first_open = (before..done.len()).find(|at| !done[*at]).unwrap_or(done.len());
        if first_open != before {
            self.first_open.set(first_open);
            self.moved.notify_waiters();
        }
    }
}

/// How long a trace is replayed, and how much of that is measured.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) warming: Duration,
    pub(super) measured: Duration,
}

/// A bound on the connections that are opened in a second, with as large a burst as a data plane has.
pub(super) fn limiter(rate: u32) -> DefaultDirectRateLimiter {
    let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
    RateLimiter::direct(Quota::per_second(number(rate)).allow_burst(number(rate.div_ceil(8))))
}

/// Replays a trace of so many requests, dealt to connections; answers requests served in a second.
pub(super) async fn replay(
    urls: &[String],
    steps: &[Vec<Step>],
    requests: usize,
    rate: &DefaultDirectRateLimiter,
    times: Times,
) -> f64 {
    let window = Window { done: RefCell::new(vec![false; requests]), first_open: Cell::new(0), moved: Notify::new() };
    let (begun, served) = (Instant::now(), Cell::new(0_u64));
    let until = times.warming + times.measured;
    let work = steps.iter().map(async |steps| {
        let mut connection: Option<PgConnection> = None;
        for step in steps {
            window.enter(step.at).await;
            if begun.elapsed() >= until {
                break;
            }
            if step.opens {
                if let Some(old) = connection.take() {
                    let _ = old.close().await;
                }
                rate.until_ready().await;
            }
            let connection = match &mut connection {
                Some(open) => open,
                closed => closed.insert(connect(&urls[step.tenant]).await),
            };
            list(connection).await;
            window.leave(step.at);
            if (times.warming..until).contains(&begun.elapsed()) {
                served.set(served.get() + 1);
            }
        }
        if let Some(connection) = connection {
            let _ = connection.close().await;
        }
    });
    // Whoever waits for a window that moves no more is not waited for.
    let _ = tokio::time::timeout(until + Duration::from_secs(1), join_all(work)).await;
    #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
    let served = served.get() as f64;
    served / times.measured.as_secs_f64()
}

pub(super) async fn connect(url: &str) -> PgConnection {
    let options = PgConnectOptions::from_str(url).unwrap();
    let options = options.options([("client_connection_check_interval", "1s")]).disable_statement_logging();
    options.connect().await.unwrap()
}

/// The pet list, read as the handler reads it.
pub(super) async fn list(connection: &mut PgConnection) {
    let rows = sea_orm::sqlx::query(LIST).bind(11_i64).fetch_all(connection).await.unwrap();
    assert!(!rows.is_empty(), "each tenant has a pet");
}
