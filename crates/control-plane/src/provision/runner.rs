//! The runner: finds operations that are due, takes a lease on each, and walks several at once.
//!
//! It keeps nothing in memory that the rows do not say. Any number of runners may work on one registry.

use std::collections::HashMap;
use std::time::Duration;

use opentelemetry::KeyValue;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::On;
use super::pace::Pace;
use super::slots::{Slots, take};
use super::walk::walk;
use crate::plane::Plane;

/// Works on what is due until told to stop; then finishes the steps at hand and lets its leases go.
pub(crate) async fn run(plane: Plane, stopping: CancellationToken) {
    let pace = Pace { lease: plane.lease, ..Pace::default() };
    run_at(plane, pace, stopping).await;
}

/// As [`run`], at another pace.
pub(super) async fn run_at(plane: Plane, pace: Pace, stopping: CancellationToken) {
    let holder = plane.id;
    // Dropped with this future: whoever ends the runner ends its work.
    let mut walks = JoinSet::new();
    // What they work on.
    let mut at_work = HashMap::new();
    // When what was put off here is due again.
    let mut due: Option<Instant> = None;
    while !stopping.is_cancelled() {
        if walks.len() < pace.at_once {
            due = due.filter(|due| *due > Instant::now());
            let slots = Slots::of(&plane.registry, &plane.breakers, pace.at_once, at_work.values().copied());
            let taken = async { take(&plane.registry, holder, &pace, slots.await?).await };
            match taken.await {
                Ok(leases) => {
                    for lease in leases {
                        let operation = lease.operation();
                        let Ok(on) = On::of(operation) else { continue };
                        let span = tracing::info_span!("operation", id = %operation.id, kind = operation.kind,
                            tenant = on.tenant().map(tracing::field::display),
                            server = on.server().map(tracing::field::display), fence = operation.fence);
                        let walk = walk(plane.clone(), lease, pace.clone(), stopping.clone()).instrument(span);
                        at_work.insert(walks.spawn(walk).id(), on);
                    }
                }
                Err(error) => tracing::warn!(%error, "could not look for operations that are due"),
            }
        }
        tokio::select! {
            () = stopping.cancelled() => {}
            () = plane.wake.rung(), if walks.len() < pace.at_once => {}
            Some(ended) = walks.join_next_with_id() => {
                at_work.remove(&ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id));
                let again = put_off(ended.map(|(_, pause)| pause)).map(|pause| Instant::now() + pause);
                due = due.into_iter().chain(again).min();
            }
            () = sleep(pace.scan) => {}
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && walks.len() < pace.at_once => {}
        }
    }
    while let Some(ended) = walks.join_next().await {
        put_off(ended);
    }
}

/// How soon a walk's operation is due again. A panic in a step is caught where the step is run; this one is ours. The lease
/// lapses, and the work is tried again.
fn put_off(ended: Result<Option<Duration>, JoinError>) -> Option<Duration> {
    ended.unwrap_or_else(|error| {
        tracing::error!(%error, "the work on an operation broke off");
        None
    })
}

/// Counts an operation that has ended.
pub(super) fn count(kind: &'static str, state: &'static str) {
    use std::sync::LazyLock;

    use opentelemetry::metrics::Counter;

    static ENDED: LazyLock<Counter<u64>> = LazyLock::new(|| {
        opentelemetry::global::meter("control-plane")
            .u64_counter("operations_ended")
            .with_description("Operations that ended, by kind and state.")
            .build()
    });
    ENDED.add(1, &[KeyValue::new("kind", kind), KeyValue::new("state", state)]);
}
