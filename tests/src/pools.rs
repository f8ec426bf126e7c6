//! Many at once: few connections for a cold tenant, nobody waits for another, and nobody sees another's pets.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::bed::{Bed, PATIENCE, Store, Tuning, send};
use crate::on_both;

on_both!(sixty_four_first_requests_to_one_tenant_open_what_its_plan_allows, 1, 1);
async fn sixty_four_first_requests_to_one_tenant_open_what_its_plan_allows(bed: Bed) {
    let acme = bed.tenant("acme").await;
    let answers = join_all((0..64).map(|_| bed.get(0, &acme, "/api/pets"))).await;
    assert_eq!(answers.iter().find(|answer| answer.status != 200).map(|answer| &answer.text), None);
    assert!((bed.metric(0, "data_plane_pool_dials_total").await - 1.0).abs() < 0.1);
    assert!((1.0..=2.0).contains(&bed.metric(0, "data_plane_connection_opens_total").await));
    assert!((bed.metric(0, "data_plane_route_lookups_total").await - 1.0).abs() < 0.1);
}

on_both!(sixty_four_cold_tenants_at_once_are_all_served, 1, 1);
async fn sixty_four_cold_tenants_at_once_are_all_served(bed: Bed) {
    let tenants = bed.tenants(64).await;
    let answers = join_all(tenants.iter().map(|tenant| bed.get(0, tenant, "/api/pets"))).await;
    assert_eq!(answers.iter().find(|answer| answer.status != 200).map(|answer| &answer.text), None);
    assert!((bed.metric(0, "data_plane_pool_dials_total").await - 64.0).abs() < 0.1);
}

/// A server that takes connections and says nothing. Told is each connection that began to speak, while it is still open.
async fn silent_server() -> (String, tokio::sync::mpsc::UnboundedReceiver<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (told, spoken_to) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                // A look whether it is there at all says nothing, and closes.
                if stream.read(&mut [0; 512]).await.is_ok_and(|length| length > 0) {
                    let _ = told.send(stream);
                }
            });
        }
    });
    (address, spoken_to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_silent_database_of_sixty_four_cold_ones_keeps_no_other_waiting() {
    // Longer than all others together take.
    let tuning = Tuning { data: "[pools]\nwait_ms = 15000\ndial_ms = 15000\n", ..Tuning::DEFAULT };
    let bed = Arc::new(Bed::start_with(Store::Postgres, 1, 1, tuning).await);
    let mut tenants = bed.tenants(64).await;
    let (address, mut spoken_to) = silent_server().await;
    let silent = tenants.swap_remove(31);
    bed.point_to(&silent, &address).await;
    let (asked, asking) = (Arc::clone(&bed), silent.clone());
    let unanswered = tokio::spawn(async move { asked.get(0, &asking, "/api/pets").await });
    let served = join_all(tenants.iter().map(|tenant| bed.get(0, tenant, "/api/pets")));
    let (dialled, answers) = tokio::join!(spoken_to.recv(), served);
    assert_eq!(answers.iter().find(|answer| answer.status != 200).map(|answer| &answer.text), None);
    // All are answered, and the node still waits for the silent one to say its first word.
    assert!(!unanswered.is_finished(), "{:?}", unanswered.await);
    let still_open = dialled.unwrap().try_read(&mut [0; 512]).unwrap_err();
    assert_eq!(still_open.kind(), std::io::ErrorKind::WouldBlock);
    let answer = unanswered.await.unwrap();
    assert_eq!((answer.status, answer.kind().as_str()), (503, "database-unavailable"), "{answer:?}");
    assert!(!answer.header("retry-after").is_empty());
    for tenant in &tenants {
        assert_eq!(bed.get(0, tenant, "/api/pets").await.status, 200);
    }
}

on_both!(fifty_tenants_and_twenty_thousand_requests_never_mix, 1, 2);
async fn fifty_tenants_and_twenty_thousand_requests_never_mix(bed: Bed) {
    let tenants = Arc::new(bed.tenants(50).await);
    for tenant in tenants.iter() {
        let pet = json!({ "name": tenant.slug, "species": "cat" });
        let made = send(bed.request(0, "POST", "/api/pets").bearer_auth(&tenant.key).json(&pet)).await;
        assert_eq!(made.status, 201, "{made:?}");
        let host = json!({ "host": format!("{}.example", tenant.slug) });
        bed.done("POST", &format!("/v1/tenants/{}/domains", tenant.slug), Some(host)).await;
    }
    // The hosts are news, which each node must have heard.
    for node in 0..bed.data.len() {
        for tenant in tenants.iter() {
            let host = format!("{}.example", tenant.slug);
            let me = bed.request(node, "GET", "/api/me").bearer_auth(&tenant.key).header("host", host);
            let deadline = Instant::now() + PATIENCE;
            while send(me.try_clone().unwrap()).await.status != 200 {
                assert!(Instant::now() < deadline, "node {node} does not know {}", tenant.slug);
            }
        }
    }
    let bed = &bed;
    let tenants = &tenants;
    let seen: Vec<(String, u16, HashSet<String>)> = stream::iter(0..20_000u64)
        .map(|number| async move {
            let mut rng = StdRng::seed_from_u64(number);
            let tenant = &tenants[rng.random_range(0..tenants.len())];
            let node = rng.random_range(0..bed.data.len());
            let path = "/api/pets?species=cat";
            let request = match rng.random_range(0..5) {
                0 => bed.request(node, "GET", &format!("/{}{path}", tenant.slug)),
                1 => bed.request(node, "GET", path).header("host", format!("{}.pets.test", tenant.slug)),
                2 => bed.request(node, "GET", path).header("x-tenant-id", &tenant.slug),
                3 => bed.request(node, "GET", path).header("host", format!("{}.example", tenant.slug)),
                _ => bed.request(node, "GET", path),
            };
            let answer = send(request.bearer_auth(&tenant.key)).await;
            let names = answer.json()["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|pet| pet["name"].as_str().map(str::to_owned))
                .collect();
            (tenant.slug.clone(), answer.status, names)
        })
        .buffer_unordered(32)
        .collect()
        .await;
    assert_eq!(seen.len(), 20_000);
    for (slug, status, names) in seen {
        assert_eq!((status, names), (200, HashSet::from([slug])));
    }
}
