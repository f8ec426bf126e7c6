//! Nodes of one test: a clock and a memory of their own on the test run's Redis, requests, and what passed when.

use std::num::NonZeroU32;
use std::sync::atomic::AtomicU64;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use secrecy::SecretString;
use service::config::TelemetryConfig;
use service::telemetry::Telemetry;

use super::super::link::RETURN;
use super::*;

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const MILLISECOND: u64 = 1_000_000;
/// What passed between two looks at the clock.
const STEP: u64 = MILLISECOND / 2;

pub(super) fn plan(requests: u32, burst: u32, window_seconds: u32) -> Plan {
    let mut plan = Plan::seeded().remove(0);
    plan.requests = NonZeroU32::new(requests);
    plan.burst = NonZeroU32::new(burst);
    plan.window_seconds = NonZeroU32::new(window_seconds).unwrap();
    plan
}

/// Requests a second.
pub(super) fn rate(plan: &Plan) -> f64 {
    f64::from(plan.requests.unwrap().get()) / f64::from(plan.window_seconds.get())
}

pub(super) struct Fleet {
    pub(super) nodes: Vec<Limits>,
    now: Arc<AtomicU64>,
    mode: LimitsMode,
    mark: String,
    tenant: TenantId,
    telemetry: Telemetry,
    chance: StdRng,
    begun: u64,
    demands: Vec<u64>,
    passes: Vec<u64>,
}

impl Fleet {
    /// So many nodes, which share a memory that is old enough to be believed.
    pub(super) async fn of(nodes: usize, mode: LimitsMode) -> Self {
        let tenant = TenantId::generate();
        let mut fleet = Self {
            nodes: Vec::new(),
            now: Arc::new(AtomicU64::new(1_700_000_000 * SECOND)),
            mode,
            mark: format!("test:{tenant}"),
            tenant,
            telemetry: Telemetry::metrics_only("test", &TelemetryConfig::default()).unwrap(),
            chance: StdRng::seed_from_u64(7),
            begun: 0,
            demands: Vec::new(),
            passes: Vec::new(),
        };
        for number in 0..nodes {
            let node = fleet.node(number);
            fleet.nodes.push(node);
        }
        for node in &fleet.nodes {
            node.set_nodes(u32::try_from(nodes).unwrap());
        }
        fleet.raise_all().await;
        fleet.begun = fleet.now();
        fleet
    }

    fn node(&self, number: usize) -> Limits {
        let url =
            std::env::var("FREEHOLD_TEST_REDIS_URL").expect("run this by `cargo xtask test`, which starts a Redis");
        let config = RedisConfig { url: SecretString::from(url), mode: self.mode, timeout_ms: 5_000 };
        // No two nodes' clocks agree.
        let (own, redis) = (Arc::clone(&self.now), Arc::clone(&self.now));
        let own = move || own.load(Ordering::Relaxed) - number as u64 * 1_000 * SECOND;
        let redis: Clock = Arc::new(move || redis.load(Ordering::Relaxed));
        let meter = self.telemetry.meter("test");
        let link = Link::marked(self.mark.clone(), Some(redis), &config, format!("node-{number}"), &meter).unwrap();
        Limits::over(Arc::new(own), Some(link), self.mode == LimitsMode::Strict, 1_000)
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Another process takes this node's place, and knows nothing.
    pub(super) fn renew(&mut self, number: usize) {
        let node = self.node(number);
        node.set_nodes(u32::try_from(self.nodes.len()).unwrap());
        self.nodes[number] = node;
    }

    /// Brings all links up, however young the memory is.
    pub(super) async fn raise_all(&self) {
        // Whoever comes first marks the memory, and each tells what it knows before any believes it.
        for node in 0..self.nodes.len() {
            self.is_raised(node).await;
        }
        self.pass_time(u64::try_from(RETURN.as_nanos()).unwrap());
        for node in 0..self.nodes.len() {
            assert!(self.is_raised(node).await);
        }
    }

    /// Has a node look whether it may believe the memory.
    pub(super) async fn is_raised(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        // Who has to wait does, by a clock that the test does not set.
        let raised = tokio::time::timeout(Duration::from_millis(250), node.0.link.as_ref().unwrap().raise(node)).await;
        raised.is_ok_and(|raised| {
            raised.unwrap();
            true
        })
    }

    pub(super) fn pass_time(&self, nanos: u64) {
        self.now.fetch_add(nanos, Ordering::Relaxed);
    }

    /// As if no node reached the memory any more.
    pub(super) fn drop_links(&self) {
        for node in &self.nodes {
            node.0.link.as_ref().unwrap().fail();
        }
    }

    /// As if the memory's server had been restarted.
    pub(super) async fn lose_memory(&self) {
        let url = std::env::var("FREEHOLD_TEST_REDIS_URL").unwrap();
        let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
        let keys =
            [self.mark.clone(), format!("{}:believed-from", self.mark), format!("freehold:limits:{}", self.tenant)];
        let _: u32 = redis::cmd("DEL").arg(&keys).query_async(&mut redis).await.unwrap();
    }

    pub(super) async fn take(&self, node: usize, plan: &Plan, client: &str) -> Result<Allowance, Allowance> {
        let taken = self.nodes[node].take(self.tenant, plan, client).await;
        self.settle().await;
        taken
    }

    /// Until whatever was asked meanwhile is answered: the clock stands still as long.
    async fn settle(&self) {
        tokio::task::yield_now().await;
        for node in &self.nodes {
            if let Some(limiter) = node.0.meters.get(&Key { tenant: self.tenant, client: None }) {
                drop(limiter.asking.lock().await);
            }
        }
    }

    /// So many requests a second, for so many milliseconds, at any node.
    pub(super) async fn run(&mut self, plan: &Plan, millis: u64, rate: f64) {
        self.run_among(0..self.nodes.len(), plan, millis, rate).await;
    }

    /// The same at one node.
    pub(super) async fn run_at(&mut self, node: usize, plan: &Plan, millis: u64, rate: f64) {
        self.run_among(node..node + 1, plan, millis, rate).await;
    }

    async fn run_among(&mut self, nodes: std::ops::Range<usize>, plan: &Plan, millis: u64, rate: f64) {
        let mut due = 0.0;
        for _ in 0..millis * MILLISECOND / STEP {
            self.now.fetch_add(STEP, Ordering::Relaxed);
            due += rate * STEP as f64 / SECOND as f64;
            while due >= 1.0 {
                due -= 1.0;
                let node = self.chance.random_range(nodes.clone());
                self.demands.push(self.now());
                if self.take(node, plan, "").await.is_ok() {
                    self.passes.push(self.now());
                }
            }
        }
    }

    pub(super) fn demanded(&self) -> usize {
        self.demands.len()
    }

    pub(super) fn passed(&self) -> usize {
        self.passes.len()
    }

    /// What Redis was asked about limits.
    pub(super) fn questions(&self) -> usize {
        let text = self.telemetry.render();
        let series = text.lines().filter(|line| line.starts_with("data_plane_limits_redis_round_trips_total"));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as usize
    }

    /// Over any time, 1.05 times what the plan allows in it at most.
    pub(super) fn assert_never_more(&self, plan: &Plan) {
        let (rate, burst) = (rate(plan), f64::from(plan.burst.unwrap().get()));
        let seconds = |at: u64| (at - self.begun) as f64 / SECOND as f64;
        // Of n requests from a to b: n - 1.05 rate (b - a) is at most 1.05 burst.
        let mut least = f64::INFINITY;
        for (number, at) in self.passes.iter().enumerate() {
            let height = number as f64 - 1.05 * rate * seconds(*at);
            least = least.min(height);
            let most = height - least + 1.0;
            assert!(
                most <= 1.05 * burst,
                "{most:.1} passed beyond the rate by {:.3} s, the burst is {burst}",
                seconds(*at)
            );
        }
    }

    /// At any moment of a flood since the beginning, 0.95 times what the plan allows at least.
    pub(super) fn assert_never_less(&self, plan: &Plan) {
        let (rate, burst) = (rate(plan), f64::from(plan.burst.unwrap().get()));
        let mut passed = 0;
        for (demanded, at) in self.demands.iter().enumerate() {
            passed += self.passes[passed..].iter().take_while(|pass| *pass <= at).count();
            let allowed = (burst + rate * (at - self.begun) as f64 / SECOND as f64).floor();
            let least = 0.95 * allowed.min(demanded as f64);
            assert!(passed as f64 >= least.floor(), "{passed} passed of {demanded}, and the plan allows {allowed}");
        }
    }
}
