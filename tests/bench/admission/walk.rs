//! The walk of a request whose tenant is known, on one core and without a network: medians over batches of calls.

use std::time::Instant;

use axum::body::Body;
use axum::extract::Request;
use data_plane::Measured;
use end_to_end::idp::Idp;
use http::HeaderMap;
use serde_json::json;

use crate::Effort;
use crate::report::{Report, median};

/// Calls that are timed together: a clock is no finer than some tens of nanoseconds.
const BATCH: usize = 500;
/// At most so many times as long with 100,000 tenants as with 10: what is flat but for the processor's caches.
const FLAT: f64 = 2.0;

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
        let case = format!("{count} tenants known");
        report.at_most(&case, ("whole walk", "ns"), walk, Some(2_000.0));
        report.at_most(&case, ("API key", "ns"), key, Some(500.0));
        report.at_most(&case, ("token, seen", "ns"), token, None);
        report.at_most(&case, ("local limit", "ns"), limit, Some(200.0));
        let ten = *with_ten.get_or_insert(walk);
        report.at_most_times(&case, ("whole walk", "ns"), walk, ten, FLAT);
        eprintln!("{case}: measured");
    }
}

fn bearer(credential: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {credential}").parse().unwrap());
    headers.insert("host", "127.0.0.1:8800".parse().unwrap());
    headers
}

/// The median over batches of what one call takes. What it is called with is made before the clock runs, and each is called
/// once before anything counts.
async fn nanoseconds<T>(batches: usize, make: impl Fn(usize) -> T, call: impl AsyncFn(T)) -> f64 {
    for at in 0..BATCH {
        call(make(at)).await;
    }
    let mut times = Vec::new();
    for _ in 0..batches {
        let prepared: Vec<T> = (0..BATCH).map(&make).collect();
        let begun = Instant::now();
        for one in prepared {
            call(one).await;
        }
        #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
        times.push(begun.elapsed().as_nanos() as f64 / BATCH as f64);
    }
    median(&times)
}
