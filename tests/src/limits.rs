//! A tenant has what its plan allows, on all nodes together, whatever becomes of Redis.

mod flood;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bed::{Answer, Bed, PATIENCE, Store, Tenant, Tuning, send};
use crate::on_both;
use crate::redis::Redis;
use flood::Flood;

/// Nodes that share limits over a Redis of the test's own.
async fn sharing(redis: &Redis, nodes: usize) -> Bed {
    // A test's configuration lives as long as the test's process.
    let data: &'static str = format!("[redis]\nurl = \"{}\"\n", redis.url()).leak();
    let bed = Bed::start_with(Store::Sqlite, 1, nodes, Tuning { data, ..Tuning::DEFAULT }).await;
    until_shared(&bed, true).await;
    bed
}

async fn until_shared(bed: &Bed, is_shared: bool) {
    let deadline = Instant::now() + PATIENCE;
    for node in 0..bed.data.len() {
        while (bed.metric(node, "data_plane_limits_shared").await > 0.5) != is_shared {
            assert!(Instant::now() < deadline, "node {node} does not come to share limits: {is_shared}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// How many of so many requests pass, sent to the nodes in turn.
async fn passed(bed: &Bed, tenant: &Tenant, requests: usize) -> usize {
    let mut passed = 0;
    for request in 0..requests {
        let answer = bed.get(request % bed.data.len(), tenant, "/api/me").await;
        assert!(matches!(answer.status, 200 | 429), "{answer:?}");
        passed += usize::from(answer.status == 200);
    }
    passed
}

fn numbers(answer: &Answer) -> [u64; 3] {
    ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(|name| answer.header(name).parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_clients_at_ten_times_the_limit_have_the_plan_while_redis_dies_and_comes_back() {
    let mut redis = Redis::start();
    let bed = sharing(&redis, 3).await;
    let plan = json!({ "requests": 40, "window_seconds": 1, "burst": 80, "connections": 2, "concurrency": 256 });
    bed.done("PUT", "/v1/plans/forty", Some(plan)).await;
    let tenant = bed.tenant_on("forty", "acme").await;
    let flood = Flood::start(&bed, &tenant, 10, 400.0);
    let normal = flood.for_a_while(Duration::from_secs(4)).await;
    flood::assert_never_less(&normal, 40.0, 80.0);
    redis.kill();
    until_shared(&bed, false).await;
    let away = flood.for_a_while(Duration::from_secs(3)).await;
    assert!(flood::passed(&away) >= 60, "{} passed in 3 s while Redis was away", flood::passed(&away));
    redis.restart();
    until_shared(&bed, true).await;
    let back = flood.for_a_while(Duration::from_secs(2)).await;
    assert!(flood::passed(&back) >= 60, "{} passed in the 2 s after Redis was back", flood::passed(&back));
    let all = flood.end().await;
    flood::assert_no_failure(&all);
    flood::assert_never_more(&all, 40.0, 80.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_redis_holds_nobody_up_and_is_come_back_to() {
    let redis = Redis::start();
    let bed = sharing(&redis, 3).await;
    let plan = json!({ "requests": 40, "window_seconds": 1, "burst": 80, "connections": 2, "concurrency": 256 });
    bed.done("PUT", "/v1/plans/forty", Some(plan)).await;
    let tenant = bed.tenant_on("forty", "acme").await;
    let flood = Flood::start(&bed, &tenant, 10, 400.0);
    flood.for_a_while(Duration::from_secs(2)).await;
    redis.stop();
    until_shared(&bed, false).await;
    let slow = flood.for_a_while(Duration::from_secs(2)).await;
    assert!(flood::passed(&slow) >= 40, "{} passed in 2 s while Redis was slow", flood::passed(&slow));
    assert!(flood::slowest(&slow) < Duration::from_secs(1), "{:?}", flood::slowest(&slow));
    redis.go_on();
    until_shared(&bed, true).await;
    flood.for_a_while(Duration::from_secs(1)).await;
    let all = flood.end().await;
    flood::assert_no_failure(&all);
    flood::assert_never_more(&all, 40.0, 80.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_plan_or_limit_holds_at_once_and_is_no_refill() {
    let redis = Redis::start();
    let bed = sharing(&redis, 3).await;
    let plan = |requests: u32| json!({ "requests": requests, "connections": 2, "concurrency": 256 });
    bed.done("PUT", "/v1/plans/hourly", Some(plan(60))).await;
    let tenant = bed.tenant_on("hourly", "acme").await;
    assert_eq!(passed(&bed, &tenant, 90).await, 60);
    let until_told = async |limit: u64| {
        for node in 0..3 {
            let deadline = Instant::now() + PATIENCE;
            while numbers(&bed.get(node, &tenant, "/api/me").await)[0] != limit {
                assert!(Instant::now() < deadline, "node {node} does not hear of the limit {limit}");
            }
        }
    };
    // Each look until it is heard may use one up.
    bed.done("PUT", "/v1/plans/hourly", Some(plan(100))).await;
    until_told(100).await;
    let more = passed(&bed, &tenant, 60).await;
    assert!((30..=40).contains(&more), "{more} more passed on a plan of 100, of which 60 were used");
    bed.done("PATCH", "/v1/tenants/acme", Some(json!({ "limits": { "requests": 130 } }))).await;
    until_told(130).await;
    let shown = bed.done("GET", "/v1/tenants/acme", None).await;
    assert_eq!(shown["limits"], json!({ "requests": 130 }));
    let more = passed(&bed, &tenant, 60).await;
    assert!((20..=30).contains(&more), "{more} more passed on limits of its own of 130, of which 100 were used");
    bed.done("PATCH", "/v1/tenants/acme", Some(json!({ "limits": null }))).await;
    until_told(100).await;
    // What is out in batches may still be used.
    assert!(passed(&bed, &tenant, 30).await <= 5);
    let refused =
        bed.operator("PATCH", "/v1/tenants/acme", Some(json!({ "limits": { "burst": 2_000_000_000u32 } }))).await;
    assert_eq!((refused.status, refused.kind().as_str()), (422, "invalid-body"), "{refused:?}");
}

on_both!(a_caller_is_told_what_is_left_and_an_outsider_nothing, 1, 1);
async fn a_caller_is_told_what_is_left_and_an_outsider_nothing(bed: Bed) {
    let plan = json!({ "requests": 10, "client_requests": 4, "connections": 2, "concurrency": 256 });
    bed.done("PUT", "/v1/plans/ten", Some(plan)).await;
    let tenant = bed.tenant_on("ten", "acme").await;
    let answer = bed.get(0, &tenant, "/api/pets").await;
    assert_eq!(answer.status, 200);
    let [limit, left, reset] = numbers(&answer);
    assert_eq!((limit, left), (4, 3), "of the limit that is tighter");
    assert!((899..=900).contains(&reset), "{reset}");
    assert_eq!(answer.header("ratelimit-policy"), "\"tenant\";q=10;w=3600, \"client\";q=4;w=3600");
    assert!(answer.header("ratelimit").starts_with("\"tenant\";r=9;t=3"), "{answer:?}");
    // What the handler refuses was admitted.
    let missing = bed.get(0, &tenant, "/api/pets/01a20d1d-46bf-7645-9071-ab07ec72e333").await;
    assert_eq!((missing.status, numbers(&missing)[1]), (404, 2));
    assert_eq!(passed(&bed, &tenant, 5).await, 2);
    let refused = bed.get(0, &tenant, "/api/pets").await;
    assert_eq!((refused.status, refused.kind().as_str()), (429, "client-rate-limited"), "{refused:?}");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((890..=900).contains(&wait), "{wait}");
    assert_eq!(numbers(&refused)[..2], [4, 0]);
    // Another client of the same tenant has its own, and the tenant's what is left of it.
    let key = bed.done("POST", "/v1/tenants/acme/keys", Some(json!({ "name": "second" }))).await;
    let second = Tenant { key: key["api_key"].as_str().unwrap().to_owned(), ..tenant.clone() };
    assert_eq!(passed(&bed, &second, 6).await, 4);
    let key = bed.done("POST", "/v1/tenants/acme/keys", Some(json!({ "name": "third" }))).await;
    let third = Tenant { key: key["api_key"].as_str().unwrap().to_owned(), ..tenant.clone() };
    assert_eq!(passed(&bed, &third, 6).await, 2, "the tenant's ten are used");
    assert_eq!(bed.get(0, &third, "/api/pets").await.kind(), "rate-limited");

    let unlimited = bed.tenant("free").await;
    let outside = bed.request(0, "GET", "/acme/api/me").bearer_auth(&unlimited.key);
    let nobody = bed.request(0, "GET", "/acme/api/me");
    for (answer, status) in
        [(send(outside).await, 404), (send(nobody).await, 401), (bed.get(0, &unlimited, "/api/me").await, 200)]
    {
        assert_eq!(answer.status, status);
        let told = answer.headers.keys().filter(|name| name.as_str().contains("ratelimit")).count();
        assert_eq!(told, 0, "{answer:?}");
    }
}

on_both!(a_public_route_is_limited_by_where_calls_come_from, 1, 1);
async fn a_public_route_is_limited_by_where_calls_come_from(bed: Bed) {
    let plan = json!({ "requests": 100, "client_requests": 5, "connections": 2, "concurrency": 256 });
    bed.done("PUT", "/v1/plans/shop", Some(plan)).await;
    let tenant = bed.tenant_on("shop", "acme").await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(send(bed.request(0, "GET", "/acme/api/about")).await.status);
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429, 429]);
    let elsewhere = reqwest::Client::builder().no_proxy().local_address(IpAddr::from([127, 0, 0, 3])).build().unwrap();
    let other = send(elsewhere.get(format!("{}/acme/api/about", bed.data[0].url))).await;
    assert_eq!((other.status, numbers(&other)[1]), (200, 4), "another address is another client");
    let known = bed.get(0, &tenant, "/api/me").await;
    assert_eq!((known.status, numbers(&known)[1]), (200, 4), "who proves who it is is another client");
}

on_both!(without_redis_each_node_has_its_share, 1, 3);
async fn without_redis_each_node_has_its_share(bed: Bed) {
    let plan = json!({ "requests": 60, "connections": 2, "concurrency": 256 });
    bed.done("PUT", "/v1/plans/hourly", Some(plan)).await;
    let tenant = bed.tenant_on("hourly", "acme").await;
    // Whoever started first was alone then: that there are others is news to it.
    for node in 0..3 {
        let deadline = Instant::now() + PATIENCE;
        while bed.metric(node, "data_plane_limits_nodes").await < 2.5 {
            assert!(Instant::now() < deadline, "node {node} does not hear how many nodes there are");
        }
    }
    assert_eq!(passed(&bed, &tenant, 120).await, 60);
    assert!(bed.metric(0, "data_plane_limits_shared").await < 0.5);
}
