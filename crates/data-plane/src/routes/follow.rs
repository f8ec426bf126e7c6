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
    loop {
        let polled = tokio::select! {
            () = drained.cancelled() => break,
            polled = poll(&node, &routes, &pools, &limits) => polled,
        };
        let outcome = if polled.is_ok() { "ok" } else { "failed" };
        counter.add(1, &[KeyValue::new("outcome", outcome)]);
        match polled {
            Ok(()) => {
                heard.set_ready();
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
    if let Err(error) = routes.control.goodbye(node.id).await {
        tracing::info!(%error, "could not say goodbye; the control plane waits for this node until it is forgotten");
    }
}

async fn poll(node: &Node, routes: &Routes, pools: &Pools, limits: &Limits) -> Result<(), ControlError> {
    let table = &routes.table;
    let asked = table.position();
    let Position { epoch, after, heard, .. } = asked;
    let applied = table.applied();
    let wait = if applied < after || routes.canaries.is_any() { SHORT_WAIT_SECONDS } else { MAX_WAIT_SECONDS };
    let (nodes, canaries) = (limits.nodes(), routes.canaries.take());
    let request = FeedRequest { node: node.id, epoch, after, heard, applied, wait, nodes, canaries };
    let sent = Instant::now();
    let answer = match routes.control.feed(&request).await {
        Ok(answer) => answer,
        Err(error) => {
            routes.canaries.put_back(request.canaries);
            return Err(error);
        }
    };
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
    table.apply(asked, answer, sent);
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
    Ok(())
}
