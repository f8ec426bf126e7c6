//! Calls that meet: what is decided is decided on what holds at the commit, and bounds are bounds.

use std::time::Instant;

use futures_util::future::join_all;
use sea_orm::{ConnectionTrait as _, Statement, TransactionTrait as _};
use serde_json::json;

use crate::bed::{Bed, PATIENCE, Store, Tenant, send};
use crate::on_both;

on_both!(bounds_hold_and_nobody_loses_to_a_change_that_was_not_asked_about, 2, 0);
async fn bounds_hold_and_nobody_loses_to_a_change_that_was_not_asked_about(bed: Bed) {
    bed.tenant("acme").await;
    let bed = &bed;
    let many = |count: usize, method: &'static str, path: &'static str, body: fn(usize) -> serde_json::Value| async move {
        let calls = (0..count).map(|number| bed.operator_at(number % 2, method, path, Some(body(number))));
        let mut statuses: Vec<u16> = join_all(calls).await.into_iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        statuses
    };
    let hosts =
        many(24, "POST", "/v1/tenants/acme/domains", |number| json!({ "host": format!("h{number}.acme.test") })).await;
    assert_eq!(hosts, [vec![201; 16], vec![422; 8]].concat());
    // One key is there already.
    let keys = many(70, "POST", "/v1/tenants/acme/keys", |_| json!({})).await;
    assert_eq!(keys, [vec![201; 63], vec![422; 7]].concat());
    let names = many(16, "PATCH", "/v1/tenants/acme", |number| json!({ "name": format!("Name {number}") })).await;
    assert_eq!(names, [200; 16]);
}

/// More than the registry has connections: whoever holds one for its change waits for no second.
const CROWD: usize = 24;

on_both!(a_crowd_of_changes_at_once_is_served, 1, 0);
async fn a_crowd_of_changes_at_once_is_served(bed: Bed) {
    let bed = &bed;
    let made = join_all((0..CROWD).map(|number| async move {
        let body = json!({ "slug": format!("acme-{number}"), "name": "Acme", "plan": "test" });
        bed.operator("POST", "/v1/tenants", Some(body)).await
    }));
    for answer in made.await {
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let rotated = join_all((0..CROWD).map(|number| async move {
        bed.operator("POST", &format!("/v1/tenants/acme-{number}/rotate-credentials"), None).await
    }));
    for answer in rotated.await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

on_both!(a_repeated_call_without_a_body_takes_effect_once, 1, 0);
async fn a_repeated_call_without_a_body_takes_effect_once(bed: Bed) {
    let acme = bed.tenant("acme").await;
    let call = |path: &str, key: &str| {
        let url = format!("{}{path}", bed.control[0].url);
        bed.client.post(url).bearer_auth(&bed.token).header("idempotency-key", key.to_owned())
    };
    let first = send(call("/v1/tenants/acme/suspend", "one")).await;
    let again = send(call(&format!("/v1/tenants/{}/suspend", acme.id), "one")).await;
    assert_eq!((first.status, again.status, &first.text), (200, 200, &again.text), "by whatever name");
    assert_eq!(first.header("etag"), again.header("etag"));
    assert_eq!(send(call("/v1/tenants/acme/suspend", "two")).await.status, 409);
    assert_eq!(send(call("/v1/tenants/acme/resume", "one")).await.status, 200, "another call");
    // A slug that passes to another tenant takes no recorded answers with it.
    let keys = || call("/v1/tenants/acme/keys", "three").json(&json!({}));
    let first = send(keys()).await;
    bed.done("PATCH", "/v1/tenants/acme", Some(json!({ "slug": "renamed" }))).await;
    // As when its time is over.
    sea_orm::ConnectionTrait::execute_unprepared(&bed.registry().await, "DELETE FROM held_slugs").await.unwrap();
    bed.tenant("acme").await;
    let other = send(keys()).await;
    assert_eq!((first.status, other.status), (201, 201));
    assert_ne!(first.json()["id"], other.json()["id"]);
    // While the first waits for its tenant, its twins are told to come again, and then all answers are one.
    let create =
        || call("/v1/tenants", "four").header("prefer", "wait=30").json(&json!({ "slug": "twin", "name": "Twin" }));
    let twins = join_all((0..8).map(|_| send(create()))).await;
    let made: Vec<_> = twins.iter().filter(|twin| twin.status == 201).collect();
    assert!(!made.is_empty() && twins.iter().all(|twin| twin.status == 201 || twin.status == 409), "{twins:?}");
    let again = send(create()).await;
    assert_eq!((again.status, &again.text), (201, &made[0].text));
}

/// A key that is made while its tenant is activated: a node that took the route in between must hear of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_added_while_a_tenant_is_activated_is_news() {
    let bed = Bed::start(Store::Postgres, 1, 1).await;
    let registry = service::pool::open(bed.registry_url_of_superuser()).await.unwrap();
    let url = format!("{}/v1/tenants", bed.control[0].url);
    let body = json!({ "slug": "acme", "name": "Acme", "plan": "test" });
    assert_eq!(send(bed.client.post(url).bearer_auth(&bed.token).json(&body)).await.status, 202);
    let key = |answer: &serde_json::Value| Tenant {
        id: String::new(),
        slug: "acme".into(),
        key: answer["api_key"].as_str().unwrap().to_owned(),
    };
    let early = key(&bed.done("POST", "/v1/tenants/acme/keys", Some(json!({}))).await);
    // Whoever makes a key now has looked at the tenant, and waits.
    let lock = registry.begin().await.unwrap();
    lock.execute_unprepared("LOCK TABLE keys IN SHARE MODE").await.unwrap();
    let late = bed.done("POST", "/v1/tenants/acme/keys", Some(json!({})));
    let release = async {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let row = lock.query_one_raw(Statement::from_string(lock.get_database_backend(), waiting)).await.unwrap();
            let waiting: i64 = row.unwrap().try_get_by_index(0).unwrap();
            let status = bed.done("GET", "/v1/tenants/acme", None).await["status"].clone();
            if waiting >= 1 && status == "active" {
                bed.until(&early, "/api/me", 200).await;
                break;
            }
            // The key's maker, and the activation behind it.
            if waiting >= 2 {
                break;
            }
            assert!(Instant::now() < deadline, "{waiting} wait, and the tenant is {status}");
        }
        lock.commit().await.unwrap();
    };
    let (late, ()) = futures_util::future::join(late, release).await;
    bed.until(&early, "/api/me", 200).await;
    bed.until(&key(&late), "/api/me", 200).await;
}
