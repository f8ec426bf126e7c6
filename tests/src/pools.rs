//! Many at once: few connections for a cold tenant, nobody waits for another, and nobody sees another's pets. What bounds
//! connections, and what is told of them.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};

use crate::bed::{Bed, PATIENCE, Store, Tenant, Tuning, send};
use crate::on_both;
use crate::postgres::number;
use crate::process::folder;

on_both!(sixty_four_first_requests_to_one_tenant_open_what_its_plan_allows, 1, 1);
async fn sixty_four_first_requests_to_one_tenant_open_what_its_plan_allows(bed: Bed) {
    let acme = bed.tenant("acme").await;
    let answers = join_all((0..64).map(|_| bed.get(0, &acme, "/api/pets"))).await;
    assert_eq!(answers.iter().find(|answer| answer.status != 200).map(|answer| &answer.text), None);
    assert!((bed.metric(0, "data_plane_pool_dials_total").await - 1.0).abs() < 0.1);
    assert!((1.0..=2.0).contains(&bed.metric(0, "data_plane_connection_opens_total").await));
    assert!((bed.metric(0, "data_plane_route_lookups_total").await - 1.0).abs() < 0.1);
}

on_both!(sixty_four_cold_tenants_at_once_are_all_served_by_a_connection_each, 1, 1);
async fn sixty_four_cold_tenants_at_once_are_all_served_by_a_connection_each(bed: Bed) {
    let tenants = bed.tenants(64).await;
    let answers = join_all(tenants.iter().map(|tenant| bed.get(0, tenant, "/api/pets"))).await;
    assert_eq!(answers.iter().find(|answer| answer.status != 200).map(|answer| &answer.text), None);
    for name in ["data_plane_pool_dials_total", "data_plane_connection_opens_total"] {
        assert!((bed.metric(0, name).await - 64.0).abs() < 0.1, "{name}");
    }
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

/// What a node's metrics say.
async fn metrics(bed: &Bed, node: usize) -> String {
    send(bed.client.get(format!("{}/metrics", bed.data[node].ops_url))).await.text
}

/// What counts connections has as many series for many tenants as for one. Only what counts requests names tenants, the busiest.
pub(crate) async fn assert_names_no_tenant(bed: &Bed, tenants: &[Tenant]) {
    let text = metrics(bed, 0).await;
    let (of_requests, others): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("api_request"));
    for family in [
        "db_client_connection_count{",
        "db_client_connection_wait_time_seconds_bucket{",
        "data_plane_connection_opens_total{",
        "data_plane_pool_dials_total{",
        "data_plane_pools",
    ] {
        assert!(others.iter().any(|line| line.starts_with(family)), "there is no {family}: {text}");
    }
    for tenant in tenants {
        assert!(of_requests.iter().any(|line| line.contains(&tenant.slug)), "{} is not named: {text}", tenant.slug);
        let (database, _) = bed.registry_row(tenant).await;
        let names = [&tenant.slug, &tenant.id, &database];
        let naming = others.iter().find(|line| names.iter().any(|name| line.contains(name.as_str())));
        assert_eq!(naming, None);
    }
}

on_both!(no_metric_of_connections_names_a_tenant, 1, 1);
async fn no_metric_of_connections_names_a_tenant(bed: Bed) {
    let tenants = bed.tenants(4).await;
    for tenant in &tenants {
        bed.until(tenant, "/api/pets", 200).await;
    }
    assert_names_no_tenant(&bed, &tenants).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_have_lived_their_time_are_replaced_and_no_request_fails() {
    let tuning = Tuning { data: "[pools]\nlifetime_seconds = 1\n", ..Tuning::DEFAULT };
    let bed = Bed::start_with(Store::Postgres, 1, 1, tuning).await;
    let acme = bed.tenant("acme").await;
    bed.until(&acme, "/api/pets", 200).await;
    let (database, _) = bed.registry_row(&acme).await;
    let watch = service::pool::open(bed.superuser_url()).await.unwrap();
    // None is there for a moment while it is replaced.
    let session = format!(
        "SELECT coalesce(max(pid), 0)::int8 FROM pg_stat_activity \
         WHERE datname = '{database}' AND application_name LIKE 'freehold-data-plane%'"
    );
    let (deadline, mut seen) = (Instant::now() + PATIENCE, HashSet::new());
    while seen.len() < 4 {
        let answer = bed.get(0, &acme, "/api/pets").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        seen.extend(Some(number(&watch, &session).await).filter(|pid| *pid > 0));
        assert!(Instant::now() < deadline, "there were only these sessions: {seen:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    watch.close().await.unwrap();
}

/// The line of a log whose message begins so.
fn said(log: &str, begins: &str) -> Value {
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let said = lines.find(|line| line["message"].as_str().is_some_and(|message| message.starts_with(begins)));
    said.unwrap_or_else(|| panic!("no line begins with {begins:?}: {log}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_plane_takes_as_many_descriptors_as_it_may_have_and_tells_what_bounds_its_files() {
    let tuning = Tuning { data: "[pools]\nsqlite_connections = 100\n", ..Tuning::DEFAULT };
    let mut bed = Bed::start_with(Store::Sqlite, 1, 0, tuning).await;
    let control = bed.control[0].url.clone();
    for limit in ["-S -n 256", "-n 700"] {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("ulimit {limit} && exec \"$0\" \"$@\""))
            .arg(folder().join("petstore-data-plane"));
        bed.add_node_by(command, "petstore-data-plane", &control);
    }
    let limits = [0, 1].map(|node: usize| {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", bed.data[node].id())).unwrap();
        let files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let mut numbers = files.split_whitespace().map_while(|number| number.parse::<u64>().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    });
    // The first was started with a soft limit that is lower than the hard one.
    let (soft, hard) = limits[0];
    assert!(soft == hard && hard > 256, "{soft} of {hard}");
    let raised = said(&bed.data[0].log(), "raised the limit of open files");
    assert_eq!((&raised["before"], &raised["now"]), (&json!(256), &json!(hard)));
    let bounded = said(&bed.data[0].log(), "connections to SQLite files are bounded");
    assert_eq!(
        (&bounded["connections"], &bounded["bounded_by"]),
        (&json!(100), &json!("pools.sqlite_connections")),
        "as many as were wanted, with {hard} descriptors"
    );
    // The second may have no more: 512 are for all else, and a file takes three.
    assert_eq!(limits[1], (700, 700));
    let bounded = said(&bed.data[1].log(), "fewer connections to SQLite files than pools.sqlite_connections");
    assert_eq!(
        (&bounded["level"], &bounded["connections"], &bounded["bounded_by"]),
        (&json!("WARN"), &json!(62), &json!("open files (ulimit -n)"))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_whose_file_has_all_the_connections_it_may_have_is_not_told_to_choose_another_plan() {
    let tuning = Tuning { data: "[pools]\nwait_ms = 1500\ndial_ms = 1500\n", ..Tuning::DEFAULT };
    let bed = Bed::start_with(Store::Sqlite, 1, 1, tuning).await;
    bed.done("PUT", "/v1/plans/wide", Some(json!({ "connections": 16, "concurrency": 256 }))).await;
    for (slug, plan, most, detail, is_of_plan) in [
        ("acme", "wide", 4, "All 4 connections that a tenant may have to its SQLite database are in use.", false),
        ("globex", "test", 2, "All 2 database connections of the tenant's plan are in use.", true),
    ] {
        let tenant = bed.tenant_on(plan, slug).await;
        bed.until(&tenant, "/api/pets", 200).await;
        // All writes wait for this one.
        let file = service::pool::open(bed.database_url(&tenant).await).await.unwrap();
        let write = file.begin().await.unwrap();
        write.execute_unprepared("UPDATE pets SET name = name").await.unwrap();
        let pet = json!({ "name": "Rex", "species": "dog" });
        let post = |_| tokio::spawn(send(bed.request(0, "POST", "/api/pets").bearer_auth(&tenant.key).json(&pet)));
        let posts: Vec<_> = (0..most).map(post).collect();
        let deadline = Instant::now() + PATIENCE;
        while (in_use(&metrics(&bed, 0).await) - f64::from(most)).abs() > 0.1 {
            assert!(Instant::now() < deadline, "there are not {most} connections in use");
        }
        let refused = bed.get(0, &tenant, "/api/pets").await;
        assert_eq!((refused.status, refused.kind().as_str()), (503, "pool-exhausted"), "{refused:?}");
        assert!(refused.text.contains(detail), "{refused:?}");
        assert_eq!(refused.text.contains("choose a plan"), is_of_plan, "{refused:?}");
        assert_eq!(refused.header("retry-after"), "1", "{refused:?}");
        write.rollback().await.unwrap();
        for post in join_all(posts).await {
            assert_eq!(post.unwrap().status, 201);
        }
        file.close().await.unwrap();
    }
}

/// Connections that are used by a statement now.
fn in_use(metrics: &str) -> f64 {
    let series =
        metrics.lines().filter(|line| line.starts_with("db_client_connection_count{") && line.contains("\"used\""));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}
