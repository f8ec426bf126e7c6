//! The sender: looks for mails that are due, sends several at once, and writes down how each went.
//!
//! It keeps nothing in memory that the rows do not say. Any number of senders may work on one outbox.

use std::sync::LazyLock;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge};
use sea_orm::{DbErr, EntityTrait};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::outbox::{self, Fate, Leased};
use super::{Mail, Unsent};
use crate::plane::Plane;
use crate::registry::Registry;
use crate::registry::entities::tenants;

/// Mails that are sent at the same moment.
const AT_ONCE: usize = 8;
/// How long mails that are being sent when the service stops have to come to an end.
const LAST_CHANCE: Duration = Duration::from_secs(5);
/// The longest wait for a registry that fails.
const LONGEST: Duration = Duration::from_secs(30);

/// The times that a sender keeps.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// How long one look is from the next when nothing wakes the sender.
    pub(crate) scan: Duration,
    /// How long one attempt may take; well within a lease.
    pub(crate) attempt: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { scan: Duration::from_secs(5), attempt: Duration::from_secs(30) }
    }
}

/// Sends what is due until told to stop. Ends at once when no mail is configured.
pub(crate) async fn run(plane: Plane, stopping: CancellationToken) {
    if let Some(mail) = plane.mail.clone() {
        run_at(plane, mail, Pace::default(), stopping).await;
    }
}

/// As [`run`], with a mail and a pace of the caller's.
pub(crate) async fn run_at(plane: Plane, mail: Mail, pace: Pace, stopping: CancellationToken) {
    let mut failures = 0u32;
    let mut is_scan = true;
    while !stopping.is_cancelled() {
        // Heard from before the look on: what an operation wrote before it ended is seen, or its end is.
        let mut ends = plane.wake.ends();
        let looked = tokio::select! {
            looked = look(&plane.registry, &mail, pace, is_scan, &stopping) => looked,
            () = async { stopping.cancelled().await; sleep(LAST_CHANCE).await } => return,
        };
        failures = match looked {
            Ok(()) => 0,
            Err(error) => {
                tracing::warn!(%error, "could not look for mails that are due");
                failures.saturating_add(1)
            }
        };
        let pause = if failures == 0 { pace.scan } else { after(failures) };
        is_scan = tokio::select! {
            () = stopping.cancelled() => return,
            _ = ends.recv(), if failures == 0 => false,
            () = sleep(pause) => true,
        };
    }
}

/// How long a registry that failed so often in a row is left alone.
fn after(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(5)).min(LONGEST)
}

/// Sends all that is due.
async fn look(
    registry: &Registry,
    mail: &Mail,
    pace: Pace,
    is_scan: bool,
    stopping: &CancellationToken,
) -> Result<(), DbErr> {
    while send_due(registry, mail, pace, registry.now()).await? == AT_ONCE && !stopping.is_cancelled() {}
    if is_scan {
        WAITING.record(outbox::waiting(registry).await?, &[]);
    }
    Ok(())
}

/// Sends some of what is due, and answers how many were tried. What fails is due again later than now.
pub(crate) async fn send_due(registry: &Registry, mail: &Mail, pace: Pace, now: DateTime<Utc>) -> Result<usize, DbErr> {
    let leased = outbox::take(registry, now, AT_ONCE).await?;
    let sending = leased.iter().map(|leased| send(registry, mail, leased, pace, now));
    join_all(sending).await.into_iter().collect::<Result<(), DbErr>>()?;
    Ok(leased.len())
}

async fn send(registry: &Registry, mail: &Mail, leased: &Leased, pace: Pace, now: DateTime<Utc>) -> Result<(), DbErr> {
    let (began, row) = (Instant::now(), &leased.row);
    let tenant = tenants::Entity::find_by_id(row.tenant_id).one(registry.db()).await?;
    let outcome = match tenant {
        Some(tenant) => deliver(mail, leased, &tenant, pace).await,
        None => Err(Unsent("the tenant is gone from the registry".to_owned())),
    };
    let now = now + began.elapsed();
    match outcome {
        Ok(()) => {
            // A mail that is not known to be sent is sent again: worth more than one attempt.
            let patience = ExponentialBuilder::new().with_min_delay(Duration::from_millis(100)).with_max_times(4);
            (|| outbox::sent(registry, leased, now)).retry(patience).await?;
            tracing::info!(mail = %row.id, tenant = %row.tenant_id, kind = row.kind, "a mail was sent");
            count("sent");
        }
        Err(error) => {
            let attempts = row.attempts + 1;
            match outbox::failed(registry, leased, &error.0, now).await? {
                Fate::TriedAgain => {
                    tracing::warn!(mail = %row.id, tenant = %row.tenant_id, attempts, "a mail was not sent: {error}");
                    count("failed");
                }
                Fate::GivenUp => {
                    tracing::error!(mail = %row.id, tenant = %row.tenant_id, attempts, "a mail is given up: {error}");
                    count("given_up");
                }
            }
        }
    }
    Ok(())
}

async fn deliver(mail: &Mail, leased: &Leased, tenant: &tenants::Model, pace: Pace) -> Result<(), Unsent> {
    let message = mail.welcome(&leased.row, tenant)?;
    mail.0.transport.deliver(leased.row.id, &message, pace.attempt).await
}

/// Counts an attempt at a mail.
fn count(outcome: &'static str) {
    static ATTEMPTS: LazyLock<Counter<u64>> = LazyLock::new(|| {
        opentelemetry::global::meter("control-plane")
            .u64_counter("mails_sent")
            .with_description("Attempts at mails, by outcome.")
            .build()
    });
    ATTEMPTS.add(1, &[KeyValue::new("outcome", outcome)]);
}

static WAITING: LazyLock<Gauge<u64>> = LazyLock::new(|| {
    opentelemetry::global::meter("control-plane")
        .u64_gauge("mails_waiting")
        .with_description("Mails of all control planes that wait to be sent.")
        .build()
});
