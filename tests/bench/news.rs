//! How long news takes: from an operator's call until two data planes act on it, each through a control plane of its own.
//!
//! Measured from before the call is sent, so that the change's commit, which lies within the call, is some time after.

use std::time::{Duration, Instant};

use end_to_end::bed::{Bed, Store, Tenant, send};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::Effort;
use crate::report::{Report, median, quantile};

/// Milliseconds at the 99th percentile.
const TARGET: f64 = 250.0;

pub(crate) async fn measure(effort: Effort) -> Report {
    let mut report = Report::new("news");
    for (store, name) in [(Store::Postgres, "Postgres"), (Store::Sqlite, "SQLite")] {
        let bed = Bed::start(store, 2, 2).await;
        let acme = bed.tenant("acme").await;
        let mut times: [Vec<f64>; 3] = Default::default();
        for sample in 0..effort.either(200, 20) {
            for (at, time) in
                [suspend(&bed, &acme).await, revoke(&bed).await, config(&bed, &acme).await].into_iter().enumerate()
            {
                times[at].push(time.as_secs_f64() * 1_000.0);
            }
            if sample % 50 == 49 {
                eprintln!("{name}: {} of each", sample + 1);
            }
        }
        for (case, times) in ["suspend", "revoke a key", "config"].into_iter().zip(&times) {
            let case = format!("{case}, two replicas, two nodes, {name}");
            report.at_most(&case, ("p50", "ms"), median(times), None);
            report.at_most(&case, ("p99", "ms"), quantile(times, 0.99), Some(TARGET));
        }
    }
    report
}

/// The time of a call at one replica and of what both nodes then do.
async fn time_until(
    bed: &Bed,
    call: (&str, &str, Option<Value>),
    tenant: &Tenant,
    acts: impl Fn(u16, &Value) -> bool,
) -> Duration {
    // Both nodes know the tenant before.
    for node in 0..bed.data.len() {
        let before = bed.get(node, tenant, "/api/pets").await;
        assert!(!acts(before.status, &before.json()), "it has acted before it could: {before:?}");
    }
    let begun = Instant::now();
    let (method, path, body) = call;
    let called = bed.operator(method, path, body);
    let (acts, deadline) = (&acts, begun + Duration::from_secs(30));
    let acted = join_all((0..bed.data.len()).map(|node| async move {
        loop {
            let answer = bed.get(node, tenant, "/api/pets").await;
            if acts(answer.status, &answer.json()) {
                return begun.elapsed();
            }
            assert!(Instant::now() < deadline, "node {node} does not act: {answer:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }));
    let (called, acted) = futures_util::future::join(called, acted).await;
    assert!((200..300).contains(&called.status), "{called:?}");
    acted.into_iter().max().unwrap_or_default()
}

async fn suspend(bed: &Bed, tenant: &Tenant) -> Duration {
    let time = time_until(bed, ("POST", "/v1/tenants/acme/suspend", None), tenant, |status, _| status == 403).await;
    bed.done("POST", "/v1/tenants/acme/resume", None).await;
    bed.until(tenant, "/api/pets", 200).await;
    time
}

async fn revoke(bed: &Bed) -> Duration {
    let key = bed.done("POST", "/v1/tenants/acme/keys", Some(json!({ "name": "brief" }))).await;
    let id = key["id"].as_str().unwrap();
    let brief = Tenant { id: String::new(), slug: "acme".to_owned(), key: key["api_key"].as_str().unwrap().to_owned() };
    bed.until(&brief, "/api/pets", 200).await;
    let path = format!("/v1/tenants/acme/keys/{id}");
    time_until(bed, ("DELETE", &path, None), &brief, |status, _| status == 401).await
}

async fn config(bed: &Bed, tenant: &Tenant) -> Duration {
    // A pet that only shows where deleted ones do.
    let count = |body: &Value| body["items"].as_array().map_or(0, Vec::len);
    let pet = send(
        bed.request(0, "POST", "/api/pets").bearer_auth(&tenant.key).json(&json!({ "name": "x", "species": "y" })),
    )
    .await;
    let path = format!("/api/pets/{}", pet.json()["id"].as_str().unwrap());
    send(bed.request(0, "DELETE", &path).bearer_auth(&tenant.key)).await;
    let hidden = count(&bed.get(0, tenant, "/api/pets").await.json());
    let path = "/v1/tenants/acme/config/include_deleted_pets";
    let time = time_until(bed, ("PUT", path, Some(json!(true))), tenant, |_, body| count(body) > hidden).await;
    bed.done("PUT", path, Some(json!(false))).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    for node in 0..bed.data.len() {
        while count(&bed.get(node, tenant, "/api/pets").await.json()) != hidden {
            assert!(Instant::now() < deadline, "the configuration was not heard");
        }
    }
    time
}
