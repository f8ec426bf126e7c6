//! One pool for each tenant and generation, opened when it is first needed.
//!
//! Opening is single-flight for a tenant, and holds nobody else up. An evicted or replaced pool is closed after its last
//! user. The number of pools is bounded; the one used longest ago gives way.

mod dial;
mod lacking;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use http::StatusCode;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use sea_orm::DatabaseConnection;
use service::Problem;
use service::pool::close;
use tenancy::TenantId;
use tenancy::seal::KeyRing;

use crate::config::PoolsConfig;
use crate::routes::{Served, Url};
use crate::uses::{Use, Uses};
use dial::DialError;
use lacking::Lacking;

/// The kind of problem of a database that is not proven to be its tenant's.
pub(crate) const REFUSED: &str = "database-refused";
/// How long a failed dial answers for the next requests.
const FAILED_FOR: Duration = Duration::from_millis(500);
/// How long a look at a SQLite file counts: asking the disk for each request is a fifth of the whole walk.
const LOOKED_FOR: Duration = Duration::from_millis(10);
/// Pools that others gave up in the moment between are dialled again, this often at most.
const ATTEMPTS: u32 = 5;

/// A tenant's open pool.
#[derive(Debug)]
pub(crate) struct Pool {
    db: DatabaseConnection,
    file: Option<OpenFile>,
    users: Uses,
    url: Arc<Uses>,
    is_retired: AtomicBool,
    /// Until the pool is closed, this node dials with that URL.
    dialled: Mutex<Option<Use>>,
}

/// A pool in a session's hands: it stays open for as long as this lives.
#[derive(Debug)]
pub(crate) struct PoolUse(Arc<Pool>);

/// Which file a SQLite pool has open: a deleted one is still served by open handles.
#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    identity: (u64, u64),
    /// Until when it is taken to be there, in microseconds after the pools were made.
    looked_until: AtomicU64,
}

impl OpenFile {
    fn of(path: PathBuf) -> std::io::Result<Self> {
        let found = fs::metadata(&path)?;
        Ok(Self { identity: (found.dev(), found.ino()), path, looked_until: AtomicU64::new(0) })
    }

    fn is_there(&self, now: Duration) -> bool {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if micros(now) < self.looked_until.load(Ordering::Relaxed) {
            return true;
        }
        let is_there = fs::metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.identity);
        if is_there {
            self.looked_until.store(micros(now + LOOKED_FOR), Ordering::Relaxed);
        }
        is_there
    }
}

impl Pool {
    /// Begins a use, unless the pool was given up meanwhile.
    fn enter(self: &Arc<Self>) -> Option<PoolUse> {
        self.users.enter();
        // Its drop closes the pool, should this have been the last user.
        let entered = PoolUse(Arc::clone(self));
        (!self.is_retired.load(Ordering::SeqCst)).then_some(entered)
    }

    /// Whether its file, if it has one, is the one that it has open.
    fn is_there(&self, now: Duration) -> bool {
        self.file.as_ref().is_none_or(|file| file.is_there(now))
    }

    /// Nobody gets it any more; the last user closes it, or this if there is none.
    fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
        self.close_if_unused();
    }

    fn close_if_unused(&self) {
        if !self.is_retired.load(Ordering::SeqCst) || self.users.is_in_use() {
            return;
        }
        let dialled = self.dialled.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Whoever takes it closes. Outside of a runtime the process ends anyway.
        let (Some(dialled), Ok(runtime)) = (dialled, tokio::runtime::Handle::try_current()) else { return };
        let db = self.db.clone();
        runtime.spawn(async move {
            if let Err(error) = close(db).await {
                tracing::debug!(%error, "a pool did not close cleanly");
            }
            drop(dialled);
        });
    }
}

impl PoolUse {
    pub(crate) fn db(&self) -> &DatabaseConnection {
        &self.0.db
    }
}

impl Drop for PoolUse {
    fn drop(&mut self) {
        self.0.users.leave();
        self.0.close_if_unused();
    }
}

/// All pools of this node; clones share them.
#[derive(Clone)]
pub(crate) struct Pools {
    ring: Arc<KeyRing>,
    lacking: Arc<Lacking>,
    made: Instant,
    open: Cache<(TenantId, u64), Arc<Pool>, RandomState>,
    /// Failed dials of a moment ago, so that a database that is away is not dialled for each request.
    failed: Cache<(TenantId, u64), Arc<DialError>>,
    dials: Counter<u64>,
}

impl Pools {
    pub(crate) fn new(ring: KeyRing, config: &PoolsConfig, meter: &Meter) -> Self {
        Self::forgiving_after(FAILED_FOR, ring, config, meter)
    }

    fn forgiving_after(failed_for: Duration, ring: KeyRing, config: &PoolsConfig, meter: &Meter) -> Self {
        // The default policy may refuse a cold tenant for the sake of warm ones.
        let open = Cache::builder()
            .max_capacity(config.max)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(Duration::from_secs(config.idle_seconds))
            // Whatever the cause: evicted, replaced, idle.
            .eviction_listener(|_, pool: Arc<Pool>, _| pool.retire())
            .build_with_hasher(RandomState::default());
        let gauge = open.clone();
        meter
            .u64_observable_gauge("data_plane_pools")
            .with_description("Open pools.")
            .with_callback(move |observer| observer.observe(gauge.entry_count(), &[]))
            .build();
        let dials = meter.u64_counter("data_plane_pool_dials").with_description("Pools dialled.").build();
        let failed = Cache::builder().max_capacity(config.max).time_to_live(failed_for).build();
        let lacking = Arc::new(Lacking::new(meter));
        Self { ring: Arc::new(ring), lacking, made: Instant::now(), open, failed, dials }
    }

    /// Says which keys of the control plane's ring this node's lacks, when that changes.
    pub(crate) fn compare_rings(&self, theirs: &[String]) {
        self.lacking.compare(&self.ring, theirs);
    }

    /// The tenant's pool, dialled if it is not open.
    pub(crate) async fn of(&self, served: &Served) -> Result<PoolUse, Problem> {
        let (key, now) = ((served.route.tenant, served.route.generation), self.made.elapsed());
        if let Some(pool) = served.pool.get(now)
            && pool.is_there(now)
            && let Some(entered) = pool.enter()
        {
            return Ok(entered);
        }
        for _ in 0..ATTEMPTS {
            if let Some(entered) = self.entered(key, now).await {
                served.pool.keep(&entered.0, now);
                return Ok(entered);
            }
            if let Some(error) = self.failed.get(&key).await {
                return Err(problem(&error));
            }
            // In a box: the future of a dial is large, and would be part of every request's.
            let dialled = Box::pin(self.open.try_get_with(key, self.dial(served))).await;
            if let Some(entered) = dialled.map_err(|error: Arc<Arc<DialError>>| problem(&error))?.enter() {
                return Ok(entered);
            }
        }
        Err(problem(&Arc::new(DialError::Unavailable(None))))
    }

    /// The pool if it is open, and its file is the one that it has open.
    async fn entered(&self, key: (TenantId, u64), now: Duration) -> Option<PoolUse> {
        if let Some(pool) = self.open.get(&key).await {
            if pool.is_there(now)
                && let Some(entered) = pool.enter()
            {
                return Some(entered);
            }
            // Only the pool that was found: somebody may have dialled another meanwhile.
            if self.open.get(&key).await.is_some_and(|now| Arc::ptr_eq(&now, &pool)) {
                self.open.invalidate(&key).await;
            }
        }
        None
    }

    async fn dial(&self, served: &Served) -> Result<Arc<Pool>, Arc<DialError>> {
        let (tenant, generation) = (served.route.tenant, served.route.generation);
        let dialled = self.dial_once(served).await;
        let outcome = if dialled.is_ok() { "open" } else { "failed" };
        self.dials.add(1, &[KeyValue::new("outcome", outcome)]);
        match dialled {
            Ok(pool) => Ok(pool),
            Err(error) => {
                match &error {
                    DialError::Refused(reason) => {
                        tracing::error!(%tenant, generation, reason,
                            "refused to serve a tenant from a database that is not proven to be its own");
                    }
                    DialError::KeyMissing(_) => {
                        tracing::error!(%tenant, generation, "{error}");
                    }
                    DialError::Unavailable(source) => {
                        let source = source.as_ref().map(tracing::field::display);
                        tracing::warn!(%tenant, generation, source, "a tenant's database cannot be reached");
                    }
                }
                let error = Arc::new(error);
                self.failed.insert((tenant, generation), Arc::clone(&error)).await;
                Err(error)
            }
        }
    }

    async fn dial_once(&self, served: &Served) -> Result<Arc<Pool>, DialError> {
        let (db, path) = dial::dial(&self.ring, &served.route).await?;
        let file = path.map(OpenFile::of).transpose().map_err(|_| DialError::Unavailable(None))?;
        Ok(Arc::new(Pool {
            db,
            file,
            users: Uses::default(),
            url: Arc::clone(&served.dialled),
            is_retired: AtomicBool::new(false),
            dialled: Mutex::new(Some(served.dialled.begin())),
        }))
    }

    /// Drops the pool that dials with this URL, if there is one; its last user closes it.
    pub(crate) async fn close(&self, url: &Url) {
        let key = (url.tenant, url.generation);
        // A tenant that was resumed meanwhile may have a good pool with the same URL.
        if self.open.get(&key).await.is_some_and(|pool| Arc::ptr_eq(&pool.url, &url.dialled)) {
            self.open.invalidate(&key).await;
            // The listener hears of it now, not at some later request.
            self.open.run_pending_tasks().await;
        }
    }
}

fn problem(error: &Arc<DialError>) -> Problem {
    let retry = Duration::from_secs(1);
    match &**error {
        DialError::Unavailable(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "database-unavailable",
            "The tenant's database cannot be reached now. Send the request again after the time in Retry-After.",
        )
        .with_retry_after(retry)
        .with_source(Arc::clone(error)),
        DialError::KeyMissing(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "key-missing",
            "This node lacks the key that opens the tenant's database URL. Tell whoever runs the service: its log names the key.",
        )
        .with_retry_after(retry)
        .with_source(Arc::clone(error)),
        DialError::Refused(_) => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            REFUSED,
            "The tenant's database is not proven to be its own and is not served. Tell whoever runs the service.",
        )
        .with_retry_after(retry)
        .with_source(Arc::clone(error)),
    }
}

#[cfg(test)]
mod tests;
