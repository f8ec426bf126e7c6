//! Following the feed: asks for what came after, applies it, and says what has been applied. It ends with a goodbye.

use std::time::Duration;

use backon::BackoffBuilder as _;
use futures_util::StreamExt as _;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use service::health::Flag;
use tenancy::feed::{FeedRequest, MAX_WAIT_SECONDS};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::table::Position;
use super::{ControlError, Routes};
use crate::limits::Limits;
use crate::node::Node;
use crate::pools::Pools;

/// The wait while something old is still in use, so that its end is told soon, or while canaries are counted.
const SHORT_WAIT_SECONDS: u64 = 1;
/// Tenants asked for at once when the history is another.
const RELOADS_AT_ONCE: usize = 16;

/// Follows until no request is at work any more: until then this node serves, and what it says it serves must be true.
pub(crate) async fn follow(
    node: Node,
    routes: Routes,
    pools: Pools,
    limits: Limits,
    heard: Flag,
    drained: CancellationToken,
    meter: Meter,
) {
    let counter = meter.u64_counter("data_plane_feed_polls").with_description("Answers of the feed.").build();
    let backoff = backon::ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times();
    let mut delays = backoff.build();
    let mut is_urgent = false;
    loop {
        let polled = tokio::select! {
            () = drained.cancelled() => break,
            polled = poll(&node, &routes, &pools, &limits, is_urgent) => polled,
        };
        is_urgent = matches!(polled, Ok(false));
        let outcome = if polled.is_ok() { "ok" } else { "failed" };
        counter.add(1, &[KeyValue::new("outcome", outcome)]);
        match polled {
            Ok(is_answered) => {
                if is_answered {
                    heard.set_ready();
                }
                delays = backoff.build();
            }
            Err(error) => {
                let delay = delays.next().unwrap_or(Duration::from_secs(5));
                tracing::warn!(%error, source = std::error::Error::source(&error).map(ToString::to_string),
                    ?delay, "could not follow the control plane; what is known is served meanwhile");
                tokio::select! {
                    () = drained.cancelled() => break,
                    () = tokio::time::sleep(delay) => {}
                }
            }
        }
    }
    pools.empty().await;
    if let Err(error) = routes.control.goodbye(node.id).await {
        tracing::info!(%error, "could not say goodbye; the control plane waits for this node until it is forgotten");
    }
}

/// Asks once. False: there was something to tell before the answer came; the next request is urgent, which waits for no news and
/// is waited for.
async fn poll(
    node: &Node,
    routes: &Routes,
    pools: &Pools,
    limits: &Limits,
    is_urgent: bool,
) -> Result<bool, ControlError> {
    let table = &routes.table;
    let asked_at = table.position();
    let Position { epoch, after, heard, .. } = asked_at;
    let applied = table.applied();
    let is_watched = applied < after || routes.canaries.is_any();
    let wait = if is_urgent {
        0
    } else if is_watched {
        SHORT_WAIT_SECONDS
    } else {
        MAX_WAIT_SECONDS
    };
    let (nodes, canaries) = (limits.nodes(), routes.canaries.take());
    let (holder, shares) = (Some(node.holder), pools.share_reports());
    let request = FeedRequest { node: node.id, epoch, after, heard, applied, wait, nodes, canaries, holder, shares };
    let sent = Instant::now();
    let asked = tokio::select! {
        asked = routes.control.feed(&request) => Some(asked),
        // Another node may wait for what this one gave up: the next request tells of it.
        () = pools.share_news(), if !is_urgent => None,
    };
    let answer = match asked {
        Some(Ok(answer)) => answer,
        untold => {
            routes.canaries.put_back(request.canaries);
            return untold.map_or(Ok(false), |asked| asked.map(|_| true));
        }
    };
    pools.hear_shares(&answer.shares);
    routes.canaries.watch(&answer.canaries);
    limits.set_nodes(answer.nodes);
    pools.compare_rings(&answer.keys);
    if answer.reset && epoch == Some(answer.epoch) {
        tracing::warn!(
            heard = heard.0,
            head = answer.position.0,
            "the registry does not have all that this node heard of it: it was restored from a backup"
        );
    }
    table.apply(asked_at, answer, sent);
    for url in table.to_close() {
        pools.close(&url).await;
    }
    let awaited = table.awaited();
    if !awaited.is_empty() {
        tracing::info!(
            tenants = awaited.len(),
            "the registry's history is another, or went back; asking for all tenants again"
        );
        // What fails stays awaited, and is asked for again with the next poll.
        let reloads = futures_util::stream::iter(awaited).map(|tenant| routes.reload(tenant));
        let reloads: Vec<_> = reloads.buffer_unordered(RELOADS_AT_ONCE).collect().await;
        reloads.into_iter().collect::<Result<Vec<()>, _>>()?;
    }
    Ok(true)
}
