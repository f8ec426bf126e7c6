//! A data plane whose spool is small, and a control plane that is away for longer than it lasts.

use std::time::Instant;

use serde_json::{Value, json};

use super::records;
use crate::bed::{Bed, PATIENCE, Store, Tuning, send};

/// Keys that attempt something; each may be told of a hundred times in a minute.
const KEYS: usize = 12;
const ATTEMPTS: usize = 100;

/// All records of an action, the newest first.
async fn all(bed: &Bed, action: &str) -> Vec<Value> {
    bed.all(&format!("/v1/audit?chain=platform&action={action}"), 200).await
}

async fn a_full_spool_keeps_the_newest_and_the_trail_says_how_many_are_gone(store: Store) {
    let tuning = Tuning { data: "[audit]\nspool_mib = 1\n", ..Tuning::DEFAULT };
    let mut bed = Bed::start_with(store, 1, 1, tuning).await;
    let acme = bed.tenant("acme").await;
    let mut keys = Vec::new();
    for _ in 0..KEYS {
        let made = bed.done("POST", "/v1/tenants/acme/keys", Some(json!({}))).await;
        let tenant = crate::bed::Tenant { key: made["api_key"].as_str().unwrap().to_owned(), ..acme.clone() };
        bed.until(&tenant, "/api/me", 200).await;
        keys.push(tenant.key);
    }
    bed.control[0].kill();
    // Names as long as they may be: three times what the spool holds.
    let long = "x".repeat(256);
    let mut sent = Vec::new();
    for key in &keys {
        for _ in 0..ATTEMPTS {
            let id = format!("r-full-{}", sent.len());
            let attempt = bed.request(0, "GET", "/api/pets").bearer_auth(key).header("x-request-id", &id);
            let attempt = (0..8).fold(attempt, |attempt, _| attempt.header("x-tenant-id", &long));
            assert_eq!(send(attempt).await.status, 404);
            sent.push(id);
        }
    }
    let counted = bed.metric(0, "audit_events_dropped_total").await;
    let bytes = bed.metric(0, "audit_spool_bytes").await;
    assert!(bytes <= f64::from((1 << 20) + (256 << 10)), "{bytes} bytes wait");
    assert!(bed.data[0].log().contains("the spool of audit events is full"));

    bed.control[0].restart();
    let deadline = Instant::now() + PATIENCE;
    let (attempts, dropped) = loop {
        let (attempts, told) =
            (all(&bed, "security.cross-tenant-attempt").await, all(&bed, "audit.events-dropped").await);
        let dropped: u64 = told.iter().map(|it| it["payload"]["count"].as_u64().unwrap()).sum();
        if attempts.len() as u64 + dropped == sent.len() as u64 {
            break (attempts, dropped);
        }
        assert!(Instant::now() < deadline, "{} are told, and {dropped} to be gone", attempts.len());
    };
    assert!(dropped > 500 && attempts.len() > 100, "{dropped} are gone, and {} are told", attempts.len());
    #[allow(clippy::cast_precision_loss, reason = "a few hundred")]
    let is_counted = (counted - dropped as f64).abs() < f64::EPSILON;
    assert!(is_counted, "the metric says {counted}, the trail {dropped}");
    let place = |it: &Value| sent.iter().position(|id| it["payload"]["request_id"] == id.as_str()).unwrap();
    let places: Vec<usize> = attempts.iter().rev().map(place).collect();
    assert_eq!(places.last(), Some(&(sent.len() - 1)), "the newest are there");
    // The very oldest batch was being brought away, and is not dropped under whoever reads it.
    let gaps = places.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert!(gaps <= 1 && places.is_sorted(), "in their order, and what is gone is one piece: {places:?}");
    assert!(!records(&bed, "action=audit.batches-missing", 1).await.is_empty(), "their batches leave a gap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    a_full_spool_keeps_the_newest_and_the_trail_says_how_many_are_gone(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres() {
    a_full_spool_keeps_the_newest_and_the_trail_says_how_many_are_gone(Store::Postgres).await;
}
