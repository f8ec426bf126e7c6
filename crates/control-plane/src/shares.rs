//! Shares of servers' connections, as far as the servers themselves have a part in it: each process of a data plane gets a login
//! role for its anchor, and what gone processes have left is dealt to others once their server shows that they are gone.
//!
//! A server that does not answer holds up no other: all are worked at the same time, and each call within a time limit.

mod anchors;
mod free;
pub(crate) mod reserve;
pub(crate) mod standing;
mod tasks;

use std::sync::LazyLock;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use service::problem::BoxError;
use tokio::time::timeout;

pub(crate) use anchors::{look as look_for_anchors, run as make_anchors};
pub(crate) use free::run as free_left;
pub(crate) use standing::run as watch_standing;

use crate::engine::{EngineError, Worker};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(10);
/// How long one call on a server may take.
const WITHIN: Duration = Worker::PATIENCE;

/// A call on a server, within its time. None on the registry is cut off: its transactions have limits of their own.
async fn in_time<T>(call: impl Future<Output = Result<T, EngineError>>) -> Result<T, BoxError> {
    Ok(timeout(WITHIN, call).await??)
}

/// Counts looks, and says how long to wait for the next: longer after failures.
struct Pause {
    of: &'static str,
    pause: Duration,
}

impl Pause {
    const fn of(of: &'static str) -> Self {
        Self { of, pause: LOOK }
    }

    fn after(&mut self, is_well: bool) -> Duration {
        let outcome = KeyValue::new("outcome", if is_well { "ok" } else { "failed" });
        LOOKS.add(1, &[KeyValue::new("of", self.of), outcome]);
        self.pause = if is_well { LOOK } else { (self.pause * 2).min(LONGEST) };
        self.pause
    }
}

static LOOKS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    opentelemetry::global::meter("control-plane")
        .u64_counter("share_looks")
        .with_description(
            "Looks for connections that data planes have left, for missing anchors, and whether servers have room, by kind and outcome.",
        )
        .build()
});
