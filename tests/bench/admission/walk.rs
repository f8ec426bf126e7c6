//! The walk of a request whose tenant is known, on one core and without a network: medians over batches of calls.
//!
//! All figures for all numbers of tenants are measured in turn, in several rounds: a slow moment of the machine meets all of
//! them. Each ratio compares figures of one round.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use data_plane::Measured;
use end_to_end::idp::Idp;
use http::HeaderMap;
use serde_json::json;
use service::config::TelemetryConfig;
use service::telemetry::{Answered, RequestContext, Telemetry};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::Effort;
use crate::report::{Report, Target, median};

/// Calls that are timed together: a clock is no finer than some tens of nanoseconds.
const BATCH: usize = 500;
/// At most so many times as long with 100,000 tenants as with 10: what is flat but for the processor's caches.
const FLAT: Target = Target::AtMost(2.0);
const FLAT_COUNTING: Target = Target::AtMost(1.5);
/// At most this many times the yardstick. On a machine where the yardstick takes 170 ns these are 2 µs, 500 ns and 170 ns.
const WALK: Target = Target::AtMost(12.0);
const KEY: Target = Target::AtMost(3.0);
const LIMIT: Target = Target::AtMost(1.0);
const COUNTING: Target = Target::AtMost(0.3);
/// Tenants that send requests, of many that are known: what they need stays in the processor's caches, and they are still too many to be
/// counted one by one.
const ACTIVE: usize = 1_000;

/// Everything that one number of tenants is measured with. It is built before anything is timed, and kept for all rounds.
struct Known {
    tenants: usize,
    measured: Measured,
    /// Headers of requests with an API key, and with a token.
    keys: Vec<HeaderMap>,
    tokens: Vec<HeaderMap>,
    /// The yardstick looks up these names in this cache.
    names: Vec<String>,
    cache: moka::sync::Cache<String, usize>,
    /// Counts requests. Each is another tenant's.
    answered: Answered,
    turn: Cell<usize>,
    /// Holds the tenants' databases.
    _folder: TempDir,
}

/// The time of one call in nanoseconds, of each round.
#[derive(Default)]
struct Times {
    walk: Vec<f64>,
    key: Vec<f64>,
    token: Vec<f64>,
    limit: Vec<f64>,
    counting: Vec<f64>,
    counting_active: Vec<f64>,
    yardstick: Vec<f64>,
}

pub(crate) async fn measure(report: &mut Report, effort: Effort) {
    let idp = Idp::start().await;
    let rounds = effort.either(5, 3);
    let batches = effort.either(400, 40) / rounds;
    let mut all = Vec::new();
    for tenants in [10, 1_000, 100_000] {
        all.push((Known::new(tenants, &idp).await, Times::default()));
        eprintln!("{tenants} tenants known");
    }
    for round in 1..=rounds {
        for (known, times) in &mut all {
            known.measure(batches, times).await;
        }
        eprintln!("round {round} of {rounds} measured");
    }
    let (_, ten) = &all[0];
    for (known, times) in &all {
        let case = format!("{} tenants known", known.tenants);
        report.in_rounds(&case, ("whole walk", "ns"), &times.walk, &times.yardstick, WALK);
        report.in_rounds(&case, ("API key", "ns"), &times.key, &times.yardstick, KEY);
        report.in_rounds(&case, ("token, seen", "ns"), &times.token, &times.yardstick, Target::None);
        report.in_rounds(&case, ("local limit", "ns"), &times.limit, &times.yardstick, LIMIT);
        report.in_rounds(&case, ("counting", "ns"), &times.counting, &times.yardstick, COUNTING);
        if known.tenants > ACTIVE {
            let case = format!("{case}, {ACTIVE} of them active");
            report.in_rounds(&case, ("counting", "ns"), &times.counting_active, &times.yardstick, Target::None);
        }
        let case = format!("{case}, against 10");
        report.in_rounds(&case, ("whole walk", "ns"), &times.walk, &ten.walk, FLAT);
        report.in_rounds(&case, ("counting", "ns"), &times.counting, &ten.counting, FLAT_COUNTING);
    }
}

impl Known {
    async fn new(tenants: usize, idp: &Idp) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let measured = Measured::with_tenants(tenants, &idp.issuer, &idp.jwks_url, folder.path()).await.unwrap();
        let tokens: Vec<String> = measured
            .tenants
            .iter()
            .map(|tenant| idp.token(json!({ "tenant": tenant.to_string(), "scope": "pets:read" })))
            .collect();
        let headers = |from: &[String]| from.iter().map(|credential| bearer(credential)).collect::<Vec<_>>();
        let (keys, tokens) = (headers(&measured.keys), headers(&tokens));
        let cache = moka::sync::Cache::new(1_000_000);
        for number in 0..tenants {
            cache.insert(format!("tenant-{number}"), number);
        }
        let names = (0..100).map(|number| format!("tenant-{}", number * tenants.div_ceil(100) % tenants)).collect();
        let telemetry = Telemetry::metrics_only("measured", &TelemetryConfig::default()).unwrap();
        let answered = Answered::new(telemetry, tenants);
        Self { tenants, measured, keys, tokens, names, cache, answered, turn: Cell::new(0), _folder: folder }
    }

    /// Measures each figure once, over so many batches.
    async fn measure(&self, batches: usize, times: &mut Times) {
        let (measured, keys, tokens) = (&self.measured, &self.keys, &self.tokens);
        let key = nanoseconds(
            batches,
            |at| (at, keys),
            async |(at, keys)| {
                measured.check_credential(&keys[at % keys.len()]).await.unwrap();
            },
        );
        times.key.push(key.await);
        let token = nanoseconds(
            batches,
            |at| (at, tokens),
            async |(at, tokens)| {
                measured.check_credential(&tokens[at % tokens.len()]).await.unwrap();
            },
        );
        times.token.push(token.await);
        let limit = nanoseconds(batches, |at| at, async |at| assert!(measured.check_limit(at).await));
        times.limit.push(limit.await);
        let request = |at: usize| {
            let mut request = Request::builder().uri("/api/pets").body(Body::empty()).unwrap();
            *request.headers_mut() = keys[at % keys.len()].clone();
            request
        };
        let walk = nanoseconds(batches, request, async |request| measured.walk(request).await.unwrap());
        times.walk.push(walk.await);
        times.yardstick.push(self.yardstick(batches).await);
        times.counting.push(self.counting(batches, self.tenants).await);
        times.counting_active.push(self.counting(batches, self.tenants.min(ACTIVE)).await);
    }

    /// What the targets are ratios to, for processors differ: one SHA-256 of a key, and one look-up among as many tenants in a
    /// moka cache.
    async fn yardstick(&self, batches: usize) -> f64 {
        let (keys, names, cache) = (&self.measured.keys, &self.names, &self.cache);
        let once = async |at: usize| {
            black_box(Sha256::digest(keys[at % keys.len()].as_bytes()));
            assert!(black_box(cache.get(&names[at % names.len()])).is_some());
        };
        nanoseconds(batches, |at| at, once).await
    }

    /// Labelling and counting a request, of which each is another tenant's, of so many.
    async fn counting(&self, batches: usize, active: usize) -> f64 {
        // Another tenant each time, in an order that no cache predicts. The context is new, as in a real request.
        let request = |_| {
            self.turn.set(self.turn.get() + 7_919);
            self.answered.request(self.turn.get() % active * (self.tenants / active))
        };
        let once = async |request: Arc<RequestContext>| {
            self.answered.count(&request);
            request
        };
        nanoseconds(batches, request, once).await
    }
}

fn bearer(credential: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {credential}").parse().unwrap());
    headers.insert("host", "127.0.0.1:8800".parse().unwrap());
    headers
}

/// The median over batches of the time of one call. Arguments are made before the clock starts, and results are dropped after it
/// stops. One batch is run first and not counted.
async fn nanoseconds<T, R>(batches: usize, make: impl Fn(usize) -> T, call: impl AsyncFn(T) -> R) -> f64 {
    for at in 0..BATCH {
        call(make(at)).await;
    }
    let mut times = Vec::new();
    for _ in 0..batches {
        let prepared: Vec<T> = (0..BATCH).map(&make).collect();
        let mut answers = Vec::with_capacity(BATCH);
        let begun = Instant::now();
        for one in prepared {
            answers.push(call(one).await);
        }
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        times.push(begun.elapsed().as_nanos() as f64 / BATCH as f64);
    }
    median(&times)
}
