//! Clients that ask for more than they may have, and what became of each of their requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::bed::{Bed, Tenant, send};

/// One request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    sent: Instant,
    answered: Instant,
    status: u16,
}

/// Clients at work.
pub(super) struct Flood {
    seen: Arc<Mutex<Vec<Seen>>>,
    is_over: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Flood {
    /// So many clients, so many requests a second together, on all nodes in turn.
    pub(super) fn start(bed: &Bed, tenant: &Tenant, clients: usize, rate: f64) -> Self {
        let (seen, is_over) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<AtomicBool>::default());
        let one = |number: usize| {
            let nodes = 0..bed.data.len();
            let requests: Vec<_> =
                nodes.map(|node| bed.request(node, "GET", "/api/me").bearer_auth(&tenant.key)).collect();
            let (seen, is_over) = (Arc::clone(&seen), Arc::clone(&is_over));
            let mut due = tokio::time::interval(Duration::from_secs_f64(clients as f64 / rate));
            due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            tokio::spawn(async move {
                for request in requests.iter().cycle().skip(number) {
                    due.tick().await;
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let sent = Instant::now();
                    let status = send(request.try_clone().unwrap()).await.status;
                    seen.lock().await.push(Seen { sent, answered: Instant::now(), status });
                }
            })
        };
        let clients = (0..clients).map(one).collect();
        Self { seen, is_over, clients }
    }

    /// What was answered in the time from now on.
    pub(super) async fn for_a_while(&self, time: Duration) -> Vec<Seen> {
        let before = self.seen.lock().await.len();
        tokio::time::sleep(time).await;
        self.seen.lock().await[before..].to_vec()
    }

    /// All that was answered.
    pub(super) async fn end(self) -> Vec<Seen> {
        self.is_over.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        self.seen.lock().await.clone()
    }
}

pub(super) fn passed(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| seen.status == 200).count()
}

pub(super) fn slowest(seen: &[Seen]) -> Duration {
    seen.iter().map(|seen| seen.answered - seen.sent).max().unwrap()
}

/// Nothing but what passed and what was too much.
pub(super) fn assert_no_failure(seen: &[Seen]) {
    let strange: Vec<_> = seen.iter().filter(|seen| !matches!(seen.status, 200 | 429)).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(seen.len() > passed(seen) * 3, "{} of {} passed: it was no flood", passed(seen), seen.len());
}

/// Over any time, 1.05 times what the plan allows in it at most. A request was decided at some moment between its sending
/// and its answer.
pub(super) fn assert_never_more(seen: &[Seen], rate: f64, burst: f64) {
    let mut passes: Vec<_> = seen.iter().filter(|seen| seen.status == 200).collect();
    passes.sort_by_key(|seen| seen.answered);
    for (first, begin) in passes.iter().enumerate() {
        for (last, end) in passes.iter().enumerate().skip(first) {
            let (most, time) = ((last - first + 1) as f64, (end.answered - begin.sent).as_secs_f64());
            // Whatever passed between them was sent no earlier than the slowest of them.
            let time = time + slowest_of(&passes[first..=last]).as_secs_f64();
            let allowed = 1.05 * (burst + rate * time);
            assert!(most <= allowed, "{most} passed in {time:.3} s, at {first}: {allowed:.1} may");
        }
    }
}

fn slowest_of(seen: &[&Seen]) -> Duration {
    seen.iter().map(|seen| seen.answered - seen.sent).max().unwrap_or_default()
}

/// In this time of too many requests, 0.95 times what the plan allows in it at least.
pub(super) fn assert_never_less(seen: &[Seen], rate: f64, burst: f64) {
    let begin = seen.iter().map(|seen| seen.answered).min().unwrap();
    let end = seen.iter().map(|seen| seen.sent).max().unwrap();
    let allowed = burst + rate * (end - begin).as_secs_f64();
    assert!(passed(seen) as f64 >= 0.95 * allowed, "{} passed, and the plan allows {allowed:.1}", passed(seen));
}
