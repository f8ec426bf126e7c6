//! Rate limits: a meter for each tenant, and for each of its clients where the plan says so.
//!
//! On the path of a request a meter is looked at in memory. Where several nodes share a plan over Redis, a meter takes
//! permits from there in batches (`meter.rs`, `meter.lua`), before the last ones are used; in strict mode every request asks.
//! Without Redis, or while it is away, each node has its share of the plan: one in as many as there are nodes. Nothing here
//! ever makes a meter start full that is not.

mod answer;
mod ebb;
mod headers;
mod limiter;
mod link;
mod meter;
mod quota;

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use opentelemetry::metrics::Meter as Instruments;
use redis::RedisError;
use tenancy::{Plan, TenantId};
use tokio_util::sync::CancellationToken;

pub(crate) use headers::Allowance;

use crate::config::{LimitsMode, RedisConfig};
use crate::kept::Kept;
use answer::Ask;
use ebb::Ebb;
use limiter::Key;
pub(crate) use limiter::Limiter;
use link::{Link, Lost};
use meter::{Look, Meter, Standing};
use quota::Quota;

/// Meters at most; of those used longest ago only what they owe is remembered. One is a few hundred bytes.
const MOST: u64 = 200_000;
/// How often a request that is given a permit loses it to another before it is refused.
const ATTEMPTS: usize = 8;
/// Meters that are told of in one question.
const TOLD_AT_ONCE: usize = 100;

/// The node's clock: nanoseconds since some moment. It never goes back.
pub(crate) type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The system's clock, since now.
pub(crate) fn system_clock() -> Clock {
    let begun = Instant::now();
    Arc::new(move || u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// All meters of this node; clones share them.
#[derive(Clone)]
pub(crate) struct Limits(Arc<Inner>);

struct Inner {
    clock: Clock,
    /// The nodes that share each plan. It is told by the control plane.
    nodes: AtomicU32,
    meters: Cache<Key, Arc<Limiter>, RandomState>,
    hasher: RandomState,
    ebb: Arc<Ebb>,
    link: Option<Link>,
    is_strict: bool,
}

/// The meters of one request. Locks are taken in this order.
struct Both {
    client: Option<Arc<Limiter>>,
    tenant: Option<Arc<Limiter>>,
}

impl Both {
    fn each(&self) -> impl Iterator<Item = &Arc<Limiter>> {
        self.client.iter().chain(&self.tenant)
    }
}

/// What became of an attempt to take a permit of each meter.
enum Taken {
    /// One of each; these batches run low.
    All(Allowance, Vec<Arc<Limiter>>),
    /// None, until these were asked.
    Asking,
    /// None.
    Nothing(Allowance),
}

impl Limits {
    /// Meters over this node's share, and over Redis if it is configured. `node` is this node's name there.
    pub(crate) fn new(
        clock: Clock,
        node: String,
        redis: &RedisConfig,
        instruments: &Instruments,
    ) -> Result<Self, RedisError> {
        let link = redis.is_configured().then(|| Link::new(redis, node, instruments)).transpose()?;
        let limits = Self::over(clock, link, redis.mode == LimitsMode::Strict, MOST);
        let watched = limits.clone();
        instruments
            .u64_observable_gauge("data_plane_limits_meters")
            .with_description("Tenants and clients whose use is metered.")
            .with_callback(move |observer| observer.observe(watched.0.meters.entry_count(), &[]))
            .build();
        let watched = limits.clone();
        instruments
            .u64_observable_gauge("data_plane_limits_shared")
            .with_description("1 while limits are shared over Redis, 0 while each node keeps to its share.")
            .with_callback(move |observer| observer.observe(u64::from(watched.is_shared()), &[]))
            .build();
        let watched = limits.clone();
        instruments
            .u64_observable_gauge("data_plane_limits_nodes")
            .with_description("Nodes among which each plan is shared while it is not shared over Redis.")
            .with_callback(move |observer| observer.observe(u64::from(watched.nodes()), &[]))
            .build();
        Ok(limits)
    }

    fn over(clock: Clock, link: Option<Link>, is_strict: bool, most: u64) -> Self {
        let (ebb, hasher) = (Arc::new(Ebb::new()), RandomState::default());
        let (noted, told_apart_by) = (Arc::clone(&ebb), hasher.clone());
        let meters = Cache::builder()
            .max_capacity(most)
            // The default policy may refuse a cold tenant for the sake of warm ones.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |key: Arc<Key>, limiter: Arc<Limiter>, cause| {
                if cause == RemovalCause::Size {
                    noted.note(told_apart_by.hash_one(*key), limiter.forget());
                }
            })
            .build_with_hasher(hasher.clone());
        let nodes = AtomicU32::new(1);
        Self(Arc::new(Inner { clock, nodes, meters, hasher, ebb, link, is_strict }))
    }

    /// Takes in how many nodes there are.
    pub(crate) fn set_nodes(&self, nodes: u32) {
        self.0.nodes.store(nodes.max(1), Ordering::Relaxed);
    }

    /// Keeps the link to Redis up until told to stop.
    pub(crate) async fn keep_link(self, stopping: CancellationToken) {
        if let Some(link) = &self.0.link {
            link.keep(&self, &stopping).await;
        }
    }

    /// Takes a permit of the tenant, and one of this client of it, or neither.
    pub(crate) async fn take(&self, tenant: TenantId, plan: &Plan, client: &str) -> Result<Allowance, Allowance> {
        self.take_by(tenant, plan, client, None).await
    }

    /// As [`Limits::take`], where the tenant's meter and the client's are kept by who comes again.
    pub(crate) async fn take_by(
        &self,
        tenant: TenantId,
        plan: &Plan,
        client: &str,
        kept: Option<[&Kept<Limiter>; 2]>,
    ) -> Result<Allowance, Allowance> {
        let now = self.now();
        let both = self.both(now, tenant, plan, client, kept);
        if both.client.is_none() && both.tenant.is_none() {
            return Ok(Allowance::default());
        }
        if !self.0.is_strict || !self.is_shared() {
            match self.take_now(now, &both) {
                Taken::All(allowance, low) => {
                    for limiter in low {
                        self.refill(limiter);
                    }
                    return Ok(allowance);
                }
                Taken::Nothing(allowance) => return Err(allowance),
                Taken::Asking => {}
            }
        }
        // In a box: few requests ask, and it would be part of every one's future.
        Box::pin(self.ask_and_take(both)).await
    }

    async fn ask_and_take(&self, both: Both) -> Result<Allowance, Allowance> {
        if self.0.is_strict
            && let Some(link) = self.ready_link()
            && let Ok(is_granted) = self.ask_for_one(link, &both).await
        {
            let allowance = self.allowance(&both);
            return if is_granted { Ok(allowance) } else { Err(allowance) };
        }
        for _ in 0..ATTEMPTS {
            self.ask_for_batches(&both).await;
            match self.take_now(self.now(), &both) {
                Taken::All(allowance, _) => return Ok(allowance),
                Taken::Nothing(allowance) => return Err(allowance),
                Taken::Asking => {}
            }
        }
        Err(self.allowance(&both))
    }

    fn take_now(&self, now: u64, both: &Both) -> Taken {
        let standing = self.standing();
        let mut client = both.client.as_ref().map(|limiter| limiter.meter());
        let mut tenant = both.tenant.as_ref().map(|limiter| limiter.meter());
        if let Standing::Share(nodes) = standing {
            for meter in client.iter_mut().chain(&mut tenant) {
                meter.part(now, nodes);
            }
        }
        let look =
            |meter: &Option<MutexGuard<'_, Meter>>| meter.as_ref().map_or(Look::May, |it| it.look(now, standing));
        let looks = [look(&client), look(&tenant)];
        if !looks.contains(&Look::Wait) && looks.contains(&Look::Ask) {
            return Taken::Asking;
        }
        let mut low = Vec::new();
        if looks == [Look::May; 2] {
            for (meter, limiter) in [(&mut client, &both.client), (&mut tenant, &both.tenant)] {
                if meter.as_mut().is_some_and(|meter| meter.take(now, standing)) {
                    low.extend(limiter.clone());
                }
            }
        }
        let left = |meter: Option<MutexGuard<'_, Meter>>| meter.map(|meter| meter.left(now, standing));
        let allowance = Allowance { tenant: left(tenant), client: left(client) };
        if looks == [Look::May; 2] { Taken::All(allowance, low) } else { Taken::Nothing(allowance) }
    }

    /// The meters of a request, held to its plan.
    fn both(&self, now: u64, tenant: TenantId, plan: &Plan, client: &str, kept: Option<[&Kept<Limiter>; 2]>) -> Both {
        let [of_tenant, of_client] = kept.map_or([None; 2], |kept| kept.map(Some));
        let limiter = |quota: Quota, client: Option<&str>, kept: Option<&Kept<Limiter>>| {
            let key = Key { tenant, client: client.map(|client| self.0.hasher.hash_one(client)) };
            let limiter = self.limiter(now, key, kept, || self.begin(key, quota, client));
            limiter.meter().hold_to(now, quota);
            limiter
        };
        Both {
            client: Quota::of_client(plan).map(|quota| limiter(quota, Some(client), of_client)),
            tenant: Quota::of_tenant(plan).map(|quota| limiter(quota, None, of_tenant)),
        }
    }

    fn limiter(
        &self,
        now: u64,
        key: Key,
        kept: Option<&Kept<Limiter>>,
        begin: impl FnOnce() -> Arc<Limiter>,
    ) -> Arc<Limiter> {
        let now = Duration::from_nanos(now);
        // A caller who belongs to several tenants has a meter in each.
        if let Some(limiter) = kept.and_then(|kept| kept.get(now)).filter(|limiter| limiter.is_of(&key)) {
            return limiter;
        }
        let found = self.0.meters.get(&key);
        let limiter = found.unwrap_or_else(|| self.0.meters.get_with(key, begin));
        if let Some(kept) = kept {
            kept.keep(&limiter, now);
        }
        limiter
    }

    fn begin(&self, key: Key, quota: Quota, client: Option<&str>) -> Arc<Limiter> {
        let full_at = self.0.ebb.full_at(self.0.hasher.hash_one(key));
        Arc::new(Limiter::new(key, client, Meter::new(quota, full_at)))
    }

    /// Asks for batches where there is none. What is not answered is seen by whoever looks next.
    async fn ask_for_batches(&self, both: &Both) {
        let Some(link) = self.ready_link() else { return };
        let mut guards = Vec::with_capacity(2);
        for limiter in both.each() {
            guards.push(limiter.asking.lock().await);
        }
        let (now, nodes, standing) = (self.now(), self.nodes(), self.standing());
        let mut asked: Vec<(&Limiter, Ask)> = Vec::with_capacity(2);
        for limiter in both.each() {
            let mut meter = limiter.meter();
            if meter.look(now, standing) == Look::Ask {
                asked.push((limiter, meter.ask(now, nodes)));
            }
        }
        if !asked.is_empty() {
            // The link says what went wrong, and is down then.
            let _ = self.exchange(link, &asked, false).await;
        }
    }

    /// Asks for the next batch before the last is used, and lets nobody wait for it. One task for a meter at most.
    fn refill(&self, limiter: Arc<Limiter>) {
        let this = self.clone();
        tokio::spawn(async move {
            let Ok(_guard) = limiter.asking.try_lock() else { return };
            let Some(link) = this.ready_link() else { return };
            let ask = limiter.meter().ask(this.now(), this.nodes());
            let _ = this.exchange(link, &[(&limiter, ask)], false).await;
        });
    }

    /// Asks for one permit of each, to be used at once.
    async fn ask_for_one(&self, link: &Link, both: &Both) -> Result<bool, Lost> {
        let (now, nodes) = (self.now(), self.nodes());
        let asked: Vec<(&Limiter, Ask)> =
            both.each().map(|limiter| (&**limiter, limiter.meter().ask_for_one(now, nodes))).collect();
        self.exchange(link, &asked, true).await
    }

    /// Asks, and has the meters hear the answers. Says whether something was given of each.
    async fn exchange(&self, link: &Link, asked: &[(&Limiter, Ask)], together: bool) -> Result<bool, Lost> {
        let asks: Vec<(&str, Ask)> = asked.iter().map(|(limiter, ask)| (&*limiter.name, *ask)).collect();
        let answers = link.ask(&asks, self.nodes(), together).await?;
        let now = self.now();
        for ((limiter, ask), answer) in asked.iter().zip(&answers) {
            limiter.meter().hear(now, ask, answer);
        }
        Ok(answers.iter().all(|answer| answer.granted > 0))
    }

    /// Tells the shared memory what it does not know: what it lost, and what this node used while it was away.
    async fn tell_all(&self) -> Result<(), Lost> {
        let Some(link) = &self.0.link else { return Ok(()) };
        let Some(memory) = link.memory() else { return Err(Lost::Down) };
        let limiters: Vec<Arc<Limiter>> = self.0.meters.iter().map(|(_, limiter)| limiter).collect();
        for some in limiters.chunks(TOLD_AT_ONCE) {
            // Who is asking tells of itself.
            let free = some.iter().filter_map(|limiter| Some((limiter, limiter.asking.try_lock().ok()?)));
            let told: Vec<_> = free
                .filter_map(|(limiter, guard)| {
                    let ask = limiter.meter().tell(self.now(), self.nodes(), memory)?;
                    Some((&**limiter, ask, guard))
                })
                .collect();
            let asked: Vec<(&Limiter, Ask)> = told.iter().map(|(limiter, ask, _)| (*limiter, *ask)).collect();
            if !asked.is_empty() {
                self.exchange(link, &asked, false).await?;
            }
        }
        Ok(())
    }

    fn allowance(&self, both: &Both) -> Allowance {
        let (now, standing) = (self.now(), self.standing());
        let left = |limiter: &Option<Arc<Limiter>>| limiter.as_ref().map(|limiter| limiter.meter().left(now, standing));
        Allowance { tenant: left(&both.tenant), client: left(&both.client) }
    }

    fn is_shared(&self) -> bool {
        self.ready_link().is_some()
    }

    fn ready_link(&self) -> Option<&Link> {
        self.0.link.as_ref().filter(|link| link.is_ready())
    }

    fn standing(&self) -> Standing {
        if self.is_shared() { Standing::Leased } else { Standing::Share(self.nodes()) }
    }

    /// So many nodes share each plan.
    pub(crate) fn nodes(&self) -> u32 {
        self.0.nodes.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        (self.0.clock)()
    }
}

/// Whole seconds, rounded up.
fn seconds(nanos: u64) -> u64 {
    Duration::from_nanos(nanos).as_secs() + u64::from(!nanos.is_multiple_of(1_000_000_000))
}

#[cfg(test)]
#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counts of a test are small"
)]
mod tests;
