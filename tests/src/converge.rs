//! Invariant 6: a node that missed any number of feed messages ends at the registry's state, whatever happens to the line
//! and to the registry.

use std::time::Instant;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::bed::{Bed, PATIENCE, Tenant, send};
use crate::on_both;
use crate::proxy::Proxy;

const TENANTS: usize = 5;
const CHANGES: usize = 40;

/// All keys that ever were, and whose.
type Keys = Vec<Tenant>;

/// Changes that an operator makes, some of which are refused: what came of them, the registry knows.
async fn change(bed: &Bed, keys: &mut Keys, rng: &mut StdRng) {
    let slug = format!("tenant-{}", rng.random_range(0..TENANTS));
    let path = format!("/v1/tenants/{slug}");
    match rng.random_range(0..6) {
        0 => drop(bed.operator("POST", &format!("{path}/suspend"), None).await),
        1 => drop(bed.operator("POST", &format!("{path}/resume"), None).await),
        2 | 3 => {
            let value = json!(rng.random_bool(0.5));
            bed.done("PUT", &format!("{path}/config/include_deleted_pets"), Some(value)).await;
        }
        4 => {
            let key = bed.done("POST", &format!("{path}/keys"), Some(json!({ "name": "more" }))).await;
            keys.push(Tenant { id: String::new(), slug, key: key["api_key"].as_str().unwrap().to_owned() });
        }
        _ => {
            let Some(key) = keys.choose(rng) else { return };
            let id = key.key.split('_').nth(1).unwrap();
            drop(bed.operator("DELETE", &format!("/v1/tenants/{}/keys/{id}", key.slug), None).await);
        }
    }
}

/// Changes, while every node is asked by every key.
async fn changes(bed: &Bed, keys: &mut Keys, rng: &mut StdRng) {
    for _ in 0..CHANGES {
        let asked = keys.clone();
        let nodes = 0..bed.data.len();
        let asks = nodes.flat_map(|node| asked.iter().map(move |key| bed.get(node, key, "/api/me")));
        let (answers, ()) = futures_util::future::join(join_all(asks), change(bed, keys, rng)).await;
        for answer in answers {
            assert!([200, 401, 403, 503].contains(&answer.status), "{answer:?}");
        }
    }
}

/// What a node answers to a key: the status, and how many pets a list shows.
async fn seen(bed: &Bed, node: usize, key: &Tenant) -> (u16, Option<usize>) {
    let answer = bed.get(node, key, "/api/pets").await;
    (answer.status, answer.json()["items"].as_array().map(Vec::len))
}

/// What the registry says that a node must answer.
async fn expected(bed: &Bed, key: &Tenant) -> (u16, Option<usize>) {
    let id = key.key.split('_').nth(1).unwrap();
    let keys = bed.done("GET", &format!("/v1/tenants/{}/keys?limit=200", key.slug), None).await;
    let is_known = keys["items"].as_array().unwrap().iter().any(|known| known["id"] == id);
    let tenant = bed.done("GET", &format!("/v1/tenants/{}", key.slug), None).await;
    let config: Value = bed.done("GET", &format!("/v1/tenants/{}/config", key.slug), None).await;
    match (is_known, tenant["status"].as_str()) {
        (false, _) => (401, None),
        (true, Some("active")) => (200, Some(usize::from(config["include_deleted_pets"] == true))),
        (true, _) => (403, None),
    }
}

async fn assert_converged(bed: &Bed, keys: &Keys) {
    let deadline = Instant::now() + PATIENCE;
    for key in keys {
        let expected = expected(bed, key).await;
        for node in 0..bed.data.len() {
            let mut answered = seen(bed, node, key).await;
            while answered != expected {
                assert!(Instant::now() < deadline, "node {node}, {}: {answered:?} and not {expected:?}", key.slug);
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                answered = seen(bed, node, key).await;
            }
        }
    }
}

on_both!(a_node_that_missed_any_number_of_messages_converges, 1, 0);
async fn a_node_that_missed_any_number_of_messages_converges(mut bed: Bed) {
    let seed = rand::random();
    eprintln!("the seed of the faults and changes is {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut proxies = Vec::new();
    for node in 0..2 {
        let (proxy, url) = Proxy::start(&bed.control[0].url, seed.wrapping_add(node)).await;
        proxies.push(proxy);
        bed.add_node(&url);
    }
    let mut keys = Keys::new();
    for number in 0..TENANTS {
        let tenant = bed.tenant(&format!("tenant-{number}")).await;
        bed.until(&tenant, "/api/pets", 200).await;
        let sample = bed.get(0, &tenant, "/api/pets").await.json()["items"][0]["id"].as_str().unwrap().to_owned();
        let deleted = send(bed.request(0, "DELETE", &format!("/api/pets/{sample}")).bearer_auth(&tenant.key)).await;
        assert_eq!(deleted.status, 204, "{deleted:?}");
        keys.push(tenant);
    }
    // Only now: over a bad line a node may be told of old news again after it has served, and no single answer is sure.
    for proxy in &proxies {
        proxy.make_bad(true);
    }
    changes(&bed, &mut keys, &mut rng).await;
    // A backup, more changes, and the backup is all that is left.
    bed.control[0].kill();
    let backup = bed.back_up_registry().await;
    bed.control[0].restart();
    changes(&bed, &mut keys, &mut rng).await;
    bed.control[0].kill();
    bed.restore_registry(&backup).await;
    // As the runbook has it: by a bad line a node may ask only when as many changes were made as were lost.
    bed.control[0].restart_with(&["--restored"]);
    changes(&bed, &mut keys, &mut rng).await;
    for proxy in &proxies {
        let faults = proxy.faults();
        assert!(faults.iter().all(|count| *count > 0), "the line was bad in every way: {faults:?}");
        proxy.make_bad(false);
    }
    assert_converged(&bed, &keys).await;
    // Each says that it serves nothing older than the registry's newest.
    let head = bed.registry_head().await;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let nodes = bed.done("GET", "/v1/nodes", None).await;
        let applied: Vec<_> = nodes["items"].as_array().unwrap().iter().map(|node| node["applied"].as_i64()).collect();
        if applied == [Some(head); 2] {
            break;
        }
        assert!(Instant::now() < deadline, "{nodes} and not {head}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
