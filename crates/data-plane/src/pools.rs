//! The tenants' connections of this node: opened when they are first needed, and never more to one server than its share.
//!
//! `tenant.rs` is one tenant's connections, `server.rs` all of one server's, over which tenants compete. Opening one
//! keeps no other tenant waiting. A replaced URL's connections are closed after their last user.

mod anchor;
mod checkout;
mod connection;
mod dial;
mod file;
mod lacking;
mod metrics;
mod refusal;
mod server;
mod settings;
mod shares;
mod tenant;
mod usefulness;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use moka::future::Cache;
use moka::policy::EvictionPolicy;
use opentelemetry::metrics::Meter;
use service::Problem;
use service::problem::NoConnection;
use tenancy::seal::KeyRing;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::PoolsConfig;
use crate::routes::{Dial, Served, Url};
pub(crate) use checkout::{Checkout, Failed};
pub(crate) use connection::{Begin, Commit, Execute, Message, QueryAll, QueryOne, Rollback, Unprepared};
use dial::{DialError, Target};
use lacking::Lacking;
use metrics::{Closed, Instruments};
pub(crate) use refusal::{REFUSED, Refusal};
use server::ServerPool;
use settings::Settings;
use shares::Shares;
pub(crate) use tenant::{PoolUse, TenantPool};

/// Pools that others gave up in the moment between are made again, this often at most.
const ATTEMPTS: u32 = 5;
/// How often it is looked for connections that are idle for too long.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// All pools of this node; clones share them.
#[derive(Clone)]
pub(crate) struct Pools {
    ring: Arc<KeyRing>,
    lacking: Arc<Lacking>,
    made: Instant,
    open: Cache<Dial, Arc<TenantPool>, RandomState>,
    /// Few, and never fewer: operators register servers.
    servers: Arc<RwLock<Vec<Arc<ServerPool>>>>,
    shares: Arc<Shares>,
    settings: Settings,
    /// Connections to SQLite files at most.
    files: u32,
    instruments: Instruments,
}

impl Pools {
    /// Of the process `holder`, by which servers and the control plane know its connections.
    pub(crate) fn new(ring: KeyRing, holder: Uuid, config: &PoolsConfig, meter: &Meter) -> Self {
        // The default policy may refuse a cold tenant for the sake of warm ones.
        let open = Cache::builder()
            .max_capacity(config.max)
            .eviction_policy(EvictionPolicy::lru())
            // Whatever the cause: evicted, replaced.
            .eviction_listener(|_, pool: Arc<TenantPool>, _| pool.retire())
            .build_with_hasher(RandomState::default());
        let gauge = open.clone();
        meter
            .u64_observable_gauge("data_plane_pools")
            .with_description("Tenants whose pools are kept.")
            .with_callback(move |observer| observer.observe(gauge.entry_count(), &[]))
            .build();
        let servers = Arc::default();
        metrics::observe(meter, &servers);
        let bound = config.files();
        let files = bound.connections;
        if bound.is_short {
            tracing::warn!(
                connections = files,
                bounded_by = bound.by,
                "fewer connections to SQLite files than pools.sqlite_connections: raise the limit"
            );
        } else {
            tracing::info!(connections = files, bounded_by = bound.by, "connections to SQLite files are bounded");
        }
        Self {
            ring: Arc::new(ring),
            lacking: Arc::new(Lacking::new(meter)),
            made: Instant::now(),
            open,
            servers,
            shares: Arc::default(),
            settings: Settings::of(config, holder),
            files,
            instruments: Instruments::new(meter),
        }
    }

    /// Says which keys of the control plane's ring this node's lacks, when that changes.
    pub(crate) fn compare_rings(&self, theirs: &[String]) {
        self.lacking.compare(&self.ring, theirs);
    }

    /// The tenant's pool, with a connection if it has none.
    pub(crate) async fn of(&self, served: &Served) -> Result<PoolUse, Problem> {
        let now = self.made.elapsed();
        let most = served.route.plan.connections.get();
        if let Some(pool) = served.pool.get(now)
            && pool.is_there(now)
            && let Some(entered) = pool.enter(most)
        {
            return ready(entered).await;
        }
        for _ in 0..ATTEMPTS {
            let pool = self.pool(served, now).await?;
            // Another version of the route may have been faster.
            if Arc::ptr_eq(&pool.url, &served.dialled)
                && let Some(entered) = pool.enter(most)
            {
                served.pool.keep(&pool, now);
                return ready(entered).await;
            }
        }
        Err(problem(Refusal::NotOpened(Arc::new(DialError::Unavailable(None)))))
    }

    /// The pool of the tenant's URL, made if there is none or its file is another.
    async fn pool(&self, served: &Served, now: Duration) -> Result<Arc<TenantPool>, Problem> {
        let key = Dial::of(&served.route);
        if let Some(pool) = self.open.get(&key).await {
            // A route that was forgotten and asked for again has a count of its own.
            if pool.is_there(now) && !pool.is_retired() && Arc::ptr_eq(&pool.url, &served.dialled) {
                return Ok(pool);
            }
            // Only the pool that was found: another one may be there already.
            if self.open.get(&key).await.is_some_and(|now| Arc::ptr_eq(&now, &pool)) {
                self.open.invalidate(&key).await;
            }
        }
        let target = Target::of(&self.ring, &served.route).map_err(|error| {
            dial::tell((key.tenant, key.generation), &served.route.server, &error);
            problem(Refusal::NotOpened(Arc::new(error)))
        })?;
        let made = async {
            let of = self.server(&served.route.server, target.path().is_some());
            Arc::new(TenantPool::new((key.tenant, key.generation), target, of, Arc::clone(&served.dialled)))
        };
        Ok(self.open.get_with(key, made).await)
    }

    fn server(&self, name: &str, is_file: bool) -> Arc<ServerPool> {
        let find = |servers: &Vec<Arc<ServerPool>>| servers.iter().find(|server| *server.name == *name).cloned();
        if let Some(server) = find(&self.servers.read().unwrap_or_else(PoisonError::into_inner)) {
            return server;
        }
        let mut servers = self.servers.write().unwrap_or_else(PoisonError::into_inner);
        find(&servers).unwrap_or_else(|| {
            let metrics = self.instruments.of_server(name);
            let (share, settings) =
                if is_file { (self.files, self.settings.for_files()) } else { (0, self.settings.clone()) };
            let server = Arc::new(ServerPool::new(name.into(), share, settings, metrics, self.shares.news()));
            if !is_file {
                // None of its connections are this node's until it is told so.
                server.set_share(&self.shares.of(name), Instant::now());
                server.moor();
            }
            servers.push(Arc::clone(&server));
            server
        })
    }

    fn servers(&self) -> Vec<Arc<ServerPool>> {
        self.servers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Closes what is idle for too long, until told to stop.
    pub(crate) async fn reap(self, stopping: CancellationToken) {
        let mut ticks = tokio::time::interval(REAP_EVERY);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                now = ticks.tick() => {
                    self.servers().iter().for_each(|server| server.reap(now.into_std()));
                    self.open.run_pending_tasks().await;
                }
            }
        }
    }

    /// Has idle connections to files free memory, until told to stop.
    pub(crate) async fn rest(self, stopping: CancellationToken) {
        let mut ticks = tokio::time::interval(REAP_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                now = ticks.tick() => {
                    for server in self.servers() {
                        server.rest(now.into_std(), &stopping).await;
                    }
                }
            }
        }
    }

    /// Drops the pool that dials with this URL, if there is one; its last user closes it. Where the connections are replaced and the
    /// URL is not, none that is open serves another statement: what its users have yet to say is said by new ones.
    pub(crate) async fn close(&self, url: &Url) {
        let key = url.dial;
        // A tenant that was resumed meanwhile may have a good pool with the same URL.
        if let Some(pool) = self.open.get(&key).await.filter(|pool| Arc::ptr_eq(&pool.url, &url.dialled)) {
            self.open.invalidate(&key).await;
            // The listener hears of it now, not at some later request.
            self.open.run_pending_tasks().await;
            if url.is_dialled_again {
                pool.renew(Closed::Retired);
            }
        }
    }
}

async fn ready(pool: PoolUse) -> Result<PoolUse, Problem> {
    match pool.ready().await {
        Ok(()) => Ok(pool),
        Err(refusal) => Err(problem(refusal)),
    }
}

fn problem(refusal: Refusal) -> Problem {
    NoConnection::from(refusal).into()
}

#[cfg(test)]
mod tests;
