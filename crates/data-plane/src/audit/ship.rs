//! Bringing the spool to the control plane, batch by batch, for as long as it takes.

use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use backon::BackoffBuilder as _;
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tenancy::audit::Batch;
use tenancy::id::NodeId;
use tokio_util::sync::CancellationToken;

use super::{Audit, spool};
use crate::routes::{Control, ControlError};

/// Events of one moment go together.
const LINGER: Duration = Duration::from_millis(20);
/// How often is looked what has ended, without any news.
const LOOK: Duration = Duration::from_secs(1);
/// How long the last batches may take when the node ends; what is left is brought after its next start.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why a batch was not brought.
#[derive(Debug, thiserror::Error)]
enum Unbrought {
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error("the spool cannot be read: {0}")]
    Spool(#[from] io::Error),
}

/// Brings what was noticed, until no request is at work any more.
pub(crate) async fn ship(audit: Audit, control: Control, node: NodeId, drained: CancellationToken, meter: Meter) {
    let counter = meter.u64_counter("audit_batches").with_description("Batches of events brought, or not.").build();
    let backoff = backon::ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(5))
        .without_max_times();
    let mut delays = backoff.build();
    while !drained.is_cancelled() {
        audit.sum_up(Some(Instant::now()));
        sync(&audit).await;
        let brought = tokio::select! {
            () = drained.cancelled() => break,
            brought = bring_all(&audit, &control, node) => brought,
        };
        match brought {
            Ok(0) => {}
            Ok(count) => {
                counter.add(count, &[KeyValue::new("outcome", "taken")]);
                delays = backoff.build();
            }
            Err(error) => {
                counter.add(1, &[KeyValue::new("outcome", "failed")]);
                let delay = delays.next().unwrap_or(LOOK);
                tracing::warn!(%error, ?delay, "could not bring audit events to the control plane; they are kept");
                tokio::select! {
                    () = drained.cancelled() => break,
                    () = tokio::time::sleep(delay) => continue,
                }
            }
        }
        tokio::select! {
            () = drained.cancelled() => break,
            () = tokio::time::sleep(LOOK) => {}
            () = async {
                audit.0.news.notified().await;
                tokio::time::sleep(LINGER).await;
            } => {}
        }
    }
    audit.sum_up(None);
    sync(&audit).await;
    if !matches!(tokio::time::timeout(FAREWELL, bring_all(&audit, &control, node)).await, Ok(Ok(_))) {
        tracing::info!("some audit events were not brought; they are after the next start");
    }
}

/// Brings all batches; answers how many.
async fn bring_all(audit: &Audit, control: &Control, node: NodeId) -> Result<u64, Unbrought> {
    let mut count = 0;
    loop {
        let (number, path, spool) = {
            let mut state = audit.state();
            let Some(number) = state.spool.take()? else { return Ok(count) };
            (number, state.spool.path(number), state.spool.id())
        };
        let read = tokio::task::spawn_blocking(move || spool::read(&path)).await;
        let events = read.map_err(io::Error::other)??;
        let batch = Batch { node, spool, number, events };
        if control.bring(&batch).await?.taken >= number {
            audit.state().spool.done(number)?;
            count += 1;
        } else {
            return Err(ControlError::NotTaken.into());
        }
    }
}

/// Has the disk keep what was written, also should the power fail.
async fn sync(audit: &Audit) {
    let files = audit.state().spool.unsynced();
    let synced = match files {
        Ok(files) if files.is_empty() => return,
        Ok(files) => tokio::task::spawn_blocking(move || files.iter().try_for_each(File::sync_all))
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error))),
        Err(error) => Err(error),
    };
    if let Err(error) = synced {
        tracing::warn!(%error, "the spool of audit events could not be synced to the disk");
    }
}
