//! Shares of servers' connections, as far as the servers themselves have a part in it: each process of a data plane gets a login
//! role for its anchor, and what gone processes have left is dealt to others once their server shows that they are gone.

mod anchors;
mod free;
pub(crate) mod reserve;
pub(crate) mod standing;

use std::time::Duration;

use opentelemetry::KeyValue;
use tokio_util::sync::CancellationToken;

use crate::plane::Plane;
use anchors::Makers;
use free::Watched;
use standing::Watch;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(10);

/// Looks until told to stop.
pub(crate) async fn run(plane: Plane, stopping: CancellationToken) {
    let (mut watched, mut makers, mut watch) = (Watched::default(), Makers::default(), Watch::default());
    let looks = opentelemetry::global::meter("control-plane")
        .u64_counter("share_looks")
        .with_description(
            "Checks for connection shares of data planes that are gone and for missing anchors, by outcome.",
        )
        .build();
    let mut pause = LOOK;
    loop {
        let freed = watched.free(&plane).await.inspect_err(|error| {
            tracing::warn!(%error, "could not look at what is left of connections of data planes that are gone");
        });
        let made = makers.make(&plane).await.inspect_err(|error| {
            tracing::warn!(%error, "could not look for data planes that have no anchor yet");
        });
        let seen = watch.look(&plane).await.inspect_err(|error| {
            tracing::warn!(%error, "could not look whether servers have room for their budgets");
        });
        let is_well = freed.is_ok() && made.is_ok() && seen.is_ok();
        looks.add(1, &[KeyValue::new("outcome", if is_well { "ok" } else { "failed" })]);
        pause = if is_well { LOOK } else { (pause * 2).min(LONGEST) };
        tokio::select! {
            () = stopping.cancelled() => return,
            // It can serve nobody on its servers before it has its anchors.
            () = plane.registry.newcomer() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
