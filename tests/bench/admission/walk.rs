//! The walk of a request whose tenant is known, on one core and without a network: medians over batches of calls.

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

use crate::Effort;
use crate::report::{Report, median};

/// Calls that are timed together: a clock is no finer than some tens of nanoseconds.
const BATCH: usize = 500;
/// At most so many times as long with 100,000 tenants as with 10: what is flat but for the processor's caches.
const FLAT: f64 = 2.0;
const FLAT_COUNTING: f64 = 1.5;
/// At most this many times the yardstick. On a machine where the yardstick takes 170 ns these are 2 µs, 500 ns and 170 ns.
const WALK: f64 = 12.0;
const KEY: f64 = 3.0;
const LIMIT: f64 = 1.0;
const COUNTING: f64 = 0.3;

pub(crate) async fn measure(report: &mut Report, effort: Effort) {
    let idp = Idp::start().await;
    let batches = effort.either(400, 40);
    let mut with_ten = None;
    for count in [10, 1_000, 100_000] {
        let folder = tempfile::tempdir().unwrap();
        let measured = Measured::with_tenants(count, &idp.issuer, &idp.jwks_url, folder.path()).await.unwrap();
        let tokens: Vec<String> = measured
            .tenants
            .iter()
            .map(|tenant| idp.token(json!({ "tenant": tenant.to_string(), "scope": "pets:read" })))
            .collect();
        let credentials = |from: &[String]| from.iter().map(|credential| bearer(credential)).collect::<Vec<_>>();
        let (keys, tokens) = (credentials(&measured.keys), credentials(&tokens));

        let key = nanoseconds(
            batches,
            |at| (at, &keys),
            async |(at, keys)| {
                measured.check_credential(&keys[at % keys.len()]).await.unwrap();
            },
        );
        let key = key.await;
        let token = nanoseconds(
            batches,
            |at| (at, &tokens),
            async |(at, tokens)| {
                measured.check_credential(&tokens[at % tokens.len()]).await.unwrap();
            },
        );
        let token = token.await;
        let limit = nanoseconds(batches, |at| at, async |at| assert!(measured.check_limit(at).await)).await;
        let request = |at: usize| {
            let mut request = Request::builder().uri("/api/pets").body(Body::empty()).unwrap();
            *request.headers_mut() = keys[at % keys.len()].clone();
            request
        };
        let walk = nanoseconds(batches, request, async |request| measured.walk(request).await.unwrap()).await;
        let yardstick = yardstick(batches, count, &measured.keys).await;
        let counted = counting(batches, count).await;
        let case = format!("{count} tenants known");
        report.at_most_times(&case, ("whole walk", "ns"), walk, yardstick, WALK);
        report.at_most_times(&case, ("API key", "ns"), key, yardstick, KEY);
        report.compared(&case, ("token, seen", "ns"), token, yardstick, None);
        report.at_most_times(&case, ("local limit", "ns"), limit, yardstick, LIMIT);
        report.at_most_times(&case, ("counting", "ns"), counted, yardstick, COUNTING);
        let (ten, counted_ten) = *with_ten.get_or_insert((walk, counted));
        let case = format!("{case}, against 10");
        report.at_most_times(&case, ("whole walk", "ns"), walk, ten, FLAT);
        report.at_most_times(&case, ("counting", "ns"), counted, counted_ten, FLAT_COUNTING);
        eprintln!("{case}: measured");
    }
}

/// What the aims are ratios to, for processors differ: one SHA-256 of a key, and one look-up among as many tenants in a moka cache.
async fn yardstick(batches: usize, tenants: usize, keys: &[String]) -> f64 {
    let known = moka::sync::Cache::new(1_000_000);
    for number in 0..tenants {
        known.insert(format!("tenant-{number}"), number);
    }
    let names: Vec<String> =
        (0..100).map(|number| format!("tenant-{}", number * tenants.div_ceil(100) % tenants)).collect();
    let once = async |at: usize| {
        black_box(Sha256::digest(keys[at % keys.len()].as_bytes()));
        assert!(black_box(known.get(&names[at % names.len()])).is_some());
    };
    nanoseconds(batches, |at| at, once).await
}

/// Labelling and counting a request, of which each is another tenant's.
async fn counting(batches: usize, tenants: usize) -> f64 {
    let telemetry = Telemetry::metrics_only("measured", &TelemetryConfig::default()).unwrap();
    let answered = Answered::new(telemetry, tenants);
    let turn = Cell::new(0);
    // Another tenant each time, in an order that no cache predicts. The context is new, as in a real request.
    let request = |_| {
        turn.set(turn.get() + 7_919);
        answered.request(turn.get() % tenants)
    };
    let once = async |request: Arc<RequestContext>| {
        answered.count(&request);
        request
    };
    nanoseconds(batches, request, once).await
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
