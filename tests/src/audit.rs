//! The audit trail: what is noticed is told within a second, nothing is lost or told twice, and no change stays unseen.

mod actions;
mod full_spool;
mod refused;
mod sealed;
mod security;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bed::{Bed, NODE, PATIENCE, Tenant, send};
use crate::on_both;

/// The records that match a query, as soon as there are so many.
pub(crate) async fn records(bed: &Bed, query: &str, at_least: usize) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let page = bed.done("GET", &format!("/v1/audit?limit=200&{query}"), None).await;
        let items = page["items"].as_array().unwrap().clone();
        if items.len() >= at_least {
            return items;
        }
        assert!(Instant::now() < deadline, "no {at_least} records for {query}: {items:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Names a tenant with another's key.
async fn attempt(bed: &Bed, by: &Tenant, at: &str, request: &str) {
    let path = format!("/{at}/api/pets");
    let answer = send(bed.request(0, "GET", &path).bearer_auth(&by.key).header("x-request-id", request)).await;
    assert_eq!(answer.status, 404, "{answer:?}");
}

on_both!(a_cross_tenant_attempt_is_in_the_trail_within_a_second, 1, 1);
async fn a_cross_tenant_attempt_is_in_the_trail_within_a_second(bed: Bed) {
    let (acme, globex) = (bed.tenant("acme").await, bed.tenant("globex").await);
    bed.until(&acme, "/api/me", 200).await;
    bed.until(&globex, "/api/me", 200).await;
    let begun = Instant::now();
    attempt(&bed, &acme, "globex", "r-attempt").await;
    let told = records(&bed, "request_id=r-attempt", 2).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());

    let whole = told.iter().find(|it| it["chain"] == "platform").unwrap();
    let payload = &whole["payload"];
    assert_eq!(payload["action"], "security.cross-tenant-attempt");
    assert_eq!((&payload["tenant"], &payload["target"]), (&json!(acme.id), &json!(globex.id)));
    let key = acme.key.split('_').nth(1).unwrap();
    assert_eq!(payload["actor"], format!("key:{key}"));
    assert_eq!((&payload["from"], &payload["named"]), (&json!("127.0.0.1"), &json!(["globex"])));
    assert_eq!(payload["node"], bed.done("GET", "/v1/nodes", None).await["items"][0]["id"]);

    // Globex hears that it was aimed at, and not by whom.
    let own = told.iter().find(|it| it["chain"] == globex.id.as_str()).unwrap();
    assert!(!own.to_string().contains(&acme.id) && !own.to_string().contains(key), "{own}");
    // A tenant that never was is attempted all the same, and nobody is told of it besides the platform.
    attempt(&bed, &acme, "neverwas", "r-never").await;
    let never = records(&bed, "request_id=r-never", 1).await;
    assert_eq!((never.len(), never[0]["payload"].get("target")), (1, None));
    for (query, count) in [
        (format!("tenant={}&action=security.", globex.slug), 2),
        (format!("tenant={}&action=security.", acme.slug), 2),
        ("action=security.cross-tenant-attempt".to_owned(), 3),
        (format!("chain={}&action=security.", acme.id), 0),
        (format!("actor=key:{key}"), 2),
        ("since=2999-01-01T00:00:00Z".to_owned(), 0),
        ("until=2000-01-01T00:00:00Z".to_owned(), 0),
    ] {
        assert_eq!(records(&bed, &query, 0).await.len(), count, "{query}");
    }
}

on_both!(no_event_is_lost_or_told_twice_while_both_planes_die, 1, 1);
async fn no_event_is_lost_or_told_twice_while_both_planes_die(mut bed: Bed) {
    let (acme, globex) = (bed.tenant("acme").await, bed.tenant("globex").await);
    bed.until(&acme, "/api/me", 200).await;
    let mut requests = Vec::new();
    for round in 0..3 {
        bed.control[0].kill();
        for number in 0..10 {
            let request = format!("r-{round}-{number}");
            attempt(&bed, &acme, "globex", &request).await;
            requests.push(request);
        }
        // At once: what was answered was written.
        bed.data[0].kill();
        if round == 1 {
            bed.data[0].restart();
            bed.control[0].restart();
        } else {
            bed.control[0].restart();
            bed.data[0].restart();
        }
        bed.until(&acme, "/api/me", 200).await;
    }
    let all = records(&bed, "chain=platform&action=security.cross-tenant-attempt", requests.len()).await;
    let mut told: Vec<_> = all.iter().map(|it| it["payload"]["request_id"].as_str().unwrap().to_owned()).collect();
    told.reverse();
    assert_eq!(told, requests, "each once, in their order");
    assert!(all.iter().all(|it| it["payload"]["target"] == globex.id.as_str()));
    let others = records(&bed, "action=audit.", 0).await;
    assert!(others.is_empty(), "nothing was dropped or missing: {others:?}");
}

on_both!(a_batch_is_recorded_once_whatever_is_repeated, 2, 0);
async fn a_batch_is_recorded_once_whatever_is_repeated(bed: Bed) {
    let batch = |number: u64, requests: &[&str]| {
        let events: Vec<_> = requests
            .iter()
            .map(|id| {
                json!({ "at": "2026-11-25T09:00:00Z", "notice": "bad-credentials", "request_id": id, "count": 10,
                        "from": "192.0.2.7" })
            })
            .collect();
        json!({ "node": "01a20d1d-46bf-7645-9071-ab07ec72e333", "spool": "7f7ab1f0-5d3e-4b8e-9d0c-5ab6a2f2a001",
                "number": number, "events": events })
    };
    let bring = |at: usize, body: Value| {
        let url = format!("{}/v1/audit/batches", bed.control[at].url);
        send(bed.client.post(url).bearer_auth(NODE).json(&body))
    };
    let twins = futures_util::future::join_all((0..8).map(|at| bring(at % 2, batch(1, &["a", "b"])))).await;
    assert!(twins.iter().all(|it| it.status == 200 && it.json() == json!({ "taken": 1 })), "{twins:?}");
    assert_eq!(bring(0, batch(2, &["c"])).await.json(), json!({ "taken": 2 }));
    assert_eq!(bring(1, batch(1, &["a", "b"])).await.json(), json!({ "taken": 2 }), "an old one");
    // One that a full spool dropped leaves a gap, which is told.
    assert_eq!(bring(0, batch(5, &["d"])).await.json(), json!({ "taken": 5 }));
    let told = records(&bed, "action=security.bad-credentials", 4).await;
    let ids: Vec<_> = told.iter().rev().map(|it| it["payload"]["request_id"].clone()).collect();
    assert_eq!(ids, ["a", "b", "c", "d"]);
    let missing = records(&bed, "action=audit.batches-missing", 1).await;
    assert_eq!((missing.len(), &missing[0]["payload"]["count"]), (1, &json!(2)));
    // A newer data plane may notice what this control plane does not know.
    let mut newer = batch(6, &["e"]);
    newer["events"][0]["notice"] = json!("something-new");
    assert_eq!(bring(0, newer).await.status, 200);
    assert_eq!(records(&bed, "action=security.other", 1).await.len(), 1);
    assert_eq!(bring(0, batch(0, &[])).await.status, 422);
}
