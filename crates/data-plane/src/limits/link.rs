//! The way to the memory that all nodes share: one connection to Redis, watched by one task.
//!
//! Whoever asks waits no longer than the configured time. The first failure takes the link down, so that no request after it
//! waits at all; the task brings it back. What was used meanwhile the memory does not know, nor what it has lost: until each
//! node had the time to tell it, none takes permits from it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use backon::BackoffBuilder as _;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script};
use secrecy::ExposeSecret as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Ask};
use super::{Clock, Limits};
use crate::config::RedisConfig;

/// Where the memory's mark is.
const MARK: &str = "freehold:limits:mark";
/// So long a memory is not believed that is new, or that some node was away from: longer than it takes all nodes to notice
/// that it is there again, and to tell it what they know.
pub(super) const RETURN: Duration = Duration::from_secs(3);
/// How often a node tells what it uses meanwhile.
const TELLING: Duration = Duration::from_millis(200);
/// How often a node that asks nothing looks whether the memory is there.
const LOOK: Duration = Duration::from_millis(500);
/// The longest pause between two attempts to bring the link back.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why the memory could not be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("the link to Redis is down")]
    Down,
    #[error("Redis did not answer in time: raise `redis.timeout_ms`, or see why it is slow")]
    Slow,
    #[error("Redis has lost its memory, and is told again")]
    Forgotten,
    #[error("Redis gave an answer that is not understood")]
    NotUnderstood,
    #[error("Redis failed: check `redis.url`, and that it is a primary that takes writes")]
    Failed(#[from] RedisError),
}

#[derive(Clone)]
struct Up {
    connection: MultiplexedConnection,
    /// Which memory it leads to: a server that was restarted empty is another one.
    mark: u64,
}

/// The link; it is up, or it is down.
pub(super) struct Link {
    client: Client,
    timeout: Duration,
    node: String,
    ask: Script,
    mark: Script,
    mark_key: String,
    up: RwLock<Option<Up>>,
    is_ready: AtomicBool,
    /// Something may have been used that the memory was not told of.
    was_away: AtomicBool,
    failed: Notify,
    trips: Counter<u64>,
    /// The time that Redis is told, for tests that set it.
    told_time: Option<Clock>,
}

impl Link {
    pub(super) fn new(config: &RedisConfig, node: String, meter: &Meter) -> Result<Self, RedisError> {
        Self::marked(MARK.to_owned(), None, config, node, meter)
    }

    /// With a mark and a clock of a test's own.
    pub(super) fn marked(
        mark_key: String,
        told_time: Option<Clock>,
        config: &RedisConfig,
        node: String,
        meter: &Meter,
    ) -> Result<Self, RedisError> {
        Ok(Self {
            client: Client::open(config.url.expose_secret())?,
            timeout: Duration::from_millis(config.timeout_ms),
            node,
            ask: Script::new(include_str!("meter.lua")),
            mark: Script::new(include_str!("mark.lua")),
            mark_key,
            up: RwLock::default(),
            is_ready: AtomicBool::new(false),
            was_away: AtomicBool::new(false),
            failed: Notify::new(),
            trips: meter
                .u64_counter("data_plane_limits_redis_round_trips")
                .with_description("Questions to Redis about limits.")
                .build(),
            told_time,
        })
    }

    /// Whether permits are taken from it now.
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    /// Asks about meters, each by its name. All of the permits are given or none, if they are wanted `together`.
    pub(super) async fn ask(&self, asks: &[(&str, Ask)], nodes: u32, together: bool) -> Result<Vec<Answer>, Lost> {
        let up = self.up().ok_or(Lost::Down)?;
        let answered = self.ask_over(up, asks, nodes, together).await;
        let outcome = if answered.is_ok() { "ok" } else { "failed" };
        self.trips.add(1, &[KeyValue::new("outcome", outcome)]);
        if let Err(error) = &answered {
            self.lower(error);
        }
        answered
    }

    async fn ask_over(
        &self,
        mut up: Up,
        asks: &[(&str, Ask)],
        nodes: u32,
        together: bool,
    ) -> Result<Vec<Answer>, Lost> {
        let mut call = self.ask.prepare_invoke();
        call.key(&self.mark_key)
            .arg(up.mark)
            .arg(&self.node)
            .arg(u8::from(together))
            .arg(nodes.max(1))
            .arg(self.time());
        for (name, ask) in asks {
            let owed = if ask.told_by == up.mark { 0 } else { ask.owed };
            let good_for = ask.left_until.saturating_sub(ask.asked_at);
            call.key(*name).arg(micros(ask.quota.interval)).arg(ask.quota.burst).arg(ask.held).arg(ask.want);
            call.arg(micros(good_for)).arg(micros(owed)).arg(micros(ask.own));
        }
        let asked = tokio::time::timeout(self.timeout, call.invoke_async::<Vec<u64>>(&mut up.connection));
        let numbers = asked.await.map_err(|_| Lost::Slow)??;
        if numbers.is_empty() {
            return Err(Lost::Forgotten);
        }
        let answers = numbers.chunks_exact(2).map(|pair| {
            let granted = u32::try_from(pair[0]).ok()?;
            Some(Answer { granted, debt: pair[1].checked_mul(1_000)?, memory: up.mark })
        });
        let answers: Option<Vec<Answer>> = answers.collect();
        answers.filter(|answers| answers.len() == asks.len()).ok_or(Lost::NotUnderstood)
    }

    /// Keeps the link up until told to stop.
    pub(super) async fn keep(&self, limits: &Limits, stopping: &CancellationToken) {
        let backoff = backon::ExponentialBuilder::default()
            .with_jitter()
            .with_min_delay(Duration::from_millis(50))
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times();
        let mut delays = backoff.build();
        let mut is_told = false;
        loop {
            let raised = tokio::select! {
                () = stopping.cancelled() => return,
                raised = self.raise(limits) => raised,
            };
            match raised {
                Ok(()) => {
                    tracing::info!("limits are shared over Redis");
                    (is_told, delays) = (false, backoff.build());
                    tokio::select! {
                        () = stopping.cancelled() => return,
                        () = self.watch() => {}
                    }
                }
                Err(error) => {
                    self.trips.add(1, &[KeyValue::new("outcome", "failed")]);
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(%error, source = std::error::Error::source(&error).map(ToString::to_string),
                            "Redis cannot be reached; limits are kept by each node's share meanwhile");
                    }
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(delays.next().unwrap_or(LONGEST_PAUSE)) => {}
            }
        }
    }

    /// Until the link is down. A node that asks nothing sees a failure too, for it must tell that it was away.
    async fn watch(&self) {
        while self.is_ready() {
            // A notice of an earlier failure may still be there.
            let asked = tokio::time::timeout(LOOK, self.failed.notified()).await;
            if asked.is_err()
                && let Err(error) = self.ping().await
            {
                self.lower(&error);
            }
        }
    }

    async fn ping(&self) -> Result<(), Lost> {
        let Up { mut connection, .. } = self.up().ok_or(Lost::Down)?;
        let ping = redis::cmd("PING");
        let pinged = ping.query_async::<()>(&mut connection);
        tokio::time::timeout(self.timeout, pinged).await.map_err(|_| Lost::Slow)??;
        Ok(())
    }

    fn lower(&self, error: &Lost) {
        self.was_away.store(true, Ordering::Release);
        if self.is_ready.swap(false, Ordering::AcqRel) {
            tracing::warn!(%error, source = std::error::Error::source(error).map(ToString::to_string),
                "limits are kept by each node's share until Redis answers");
            self.failed.notify_one();
        }
    }

    /// From down to ready: the memory knows what this node knows, and the others had the time to tell it what they do.
    pub(super) async fn raise(&self, limits: &Limits) -> Result<(), Lost> {
        let raised = self.try_raise(limits).await;
        if raised.is_err() {
            self.was_away.store(true, Ordering::Release);
        }
        raised
    }

    async fn try_raise(&self, limits: &Limits) -> Result<(), Lost> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout.max(Duration::from_millis(500))))
            .set_response_timeout(Some(self.timeout));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        loop {
            let wait = self.mark(&connection).await?;
            limits.tell_all().await?;
            if wait.is_zero() {
                break;
            }
            tokio::time::sleep(wait.min(TELLING)).await;
        }
        self.is_ready.store(true, Ordering::Release);
        // What was used meanwhile.
        limits.tell_all().await
    }

    /// Learns which memory the connection leads to, and how long it is not to be believed yet.
    async fn mark(&self, connection: &MultiplexedConnection) -> Result<Duration, Lost> {
        let mut connection = connection.clone();
        let mut call = self.mark.prepare_invoke();
        let was_away = self.was_away.swap(false, Ordering::AcqRel);
        call.key(&self.mark_key).key(format!("{}:believed-from", self.mark_key));
        call.arg(rand::random_range(1..u64::MAX)).arg(u8::from(was_away)).arg(RETURN.as_micros().to_string());
        call.arg(self.time());
        let marked = call.invoke_async::<(u64, u64)>(&mut connection);
        let (mark, wait) = tokio::time::timeout(self.timeout, marked).await.map_err(|_| Lost::Slow)??;
        *self.up.write().unwrap_or_else(PoisonError::into_inner) = Some(Up { connection, mark });
        Ok(Duration::from_micros(wait))
    }

    /// The memory that is led to.
    pub(super) fn memory(&self) -> Option<u64> {
        self.up().map(|up| up.mark)
    }

    fn up(&self) -> Option<Up> {
        self.up.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As if it had failed.
    #[cfg(test)]
    pub(super) fn fail(&self) {
        self.lower(&Lost::Down);
    }

    /// Microseconds, for tests that set the time; otherwise it is Redis' own.
    fn time(&self) -> String {
        self.told_time.as_ref().map_or_else(String::new, |time| micros(time()))
    }
}

/// As Lua reads it.
fn micros(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1_000, nanos % 1_000)
}
