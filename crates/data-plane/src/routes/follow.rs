//! Following the feed: asks for what came after, applies it, and says what has been applied. It ends with a goodbye.

use std::time::Duration;

use backon::BackoffBuilder as _;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use service::health::Flag;
use tenancy::TenantId;
use tenancy::feed::{FeedRequest, MAX_WAIT_SECONDS};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::table::Applied;
use super::{ControlError, Routes};
use crate::node::Node;
use crate::pools::Pools;

/// The wait while something old is still in use, so that its end is told soon.
const SHORT_WAIT_SECONDS: u64 = 1;

/// Follows until told to stop.
pub(crate) async fn follow(
    node: Node,
    routes: Routes,
    pools: Pools,
    heard: Flag,
    stopping: CancellationToken,
    meter: Meter,
) {
    let counter = meter.u64_counter("data_plane_feed_polls").with_description("Answers of the feed.").build();
    let backoff = backon::ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times();
    let mut delays = backoff.build();
    let mut lingering = Vec::new();
    loop {
        let polled = tokio::select! {
            () = stopping.cancelled() => break,
            polled = poll(&node, &routes, &pools, &mut lingering) => polled,
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
                    () = stopping.cancelled() => break,
                    () = tokio::time::sleep(delay) => {}
                }
            }
        }
    }
    if let Err(error) = routes.control.goodbye(node.id).await {
        tracing::info!(%error, "could not say goodbye; the control plane waits for this node until it is forgotten");
    }
}

async fn poll(
    node: &Node,
    routes: &Routes,
    pools: &Pools,
    lingering: &mut Vec<(TenantId, u64)>,
) -> Result<(), ControlError> {
    let table = &routes.table;
    let (epoch, after, heard) = table.position();
    let applied = table.applied();
    if applied >= after {
        lingering.clear();
    }
    // A request that was under way may have dialled an old URL after it was given up.
    for (tenant, generation) in lingering.iter() {
        pools.close(*tenant, *generation).await;
    }
    let wait = if applied < after { SHORT_WAIT_SECONDS } else { MAX_WAIT_SECONDS };
    let request = FeedRequest { node: node.id, epoch, after, heard, applied, wait };
    let answer = routes.control.feed(&request).await?;
    let Applied { close, reload } = table.apply(after, answer, Instant::now());
    for (tenant, generation) in &close {
        pools.close(*tenant, *generation).await;
    }
    lingering.extend(close);
    if !reload.is_empty() {
        tracing::info!(tenants = reload.len(), "the registry's history is another; asking for all tenants again");
        for tenant in reload {
            routes.reload(tenant).await?;
        }
        table.reloaded();
    }
    Ok(())
}
