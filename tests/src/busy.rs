//! Servers with fewer connections than data planes and tenants ask for. A tenant that gets none is told so, and is served once
//! one is free.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sea_orm::{ConnectOptions, ConnectionTrait as _, TransactionTrait as _};
use serde_json::{Value, json};

use crate::bed::{Answer, Bed, PATIENCE, Store, Tenant, Tuning, send};
use crate::budget::{OURS, share_of, shares, until_locked_out, until_shares};
use crate::pools::assert_names_no_tenant;
use crate::postgres::{Postgres, number};

/// No request waits long for a connection that does not come.
const BRIEF: Tuning = Tuning { data: "[pools]\nwait_ms = 1500\ndial_ms = 1500\n", ..Tuning::DEFAULT };

fn assert_is_told_busy(answer: &Answer) {
    assert_eq!((answer.status, answer.kind().as_str()), (503, "server-busy"), "{answer:?}");
    assert_eq!(answer.header("retry-after"), "1", "{answer:?}");
}

/// Until this node serves the tenant, whatever others do.
async fn until_served(bed: &Bed, node: usize, tenant: &Tenant) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = bed.get(node, tenant, "/api/pets").await;
        if answer.status == 200 {
            return;
        }
        assert!(Instant::now() < deadline, "node {node} does not serve: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_a_servers_connections_are_told_that_it_is_busy_and_served_once_some_are_free() {
    let server = Postgres::start_with(&["max_connections=40"]);
    let bed = Bed::start_with(Store::Sqlite, 1, 1, BRIEF).await;
    bed.register("small", &server.url(), &json!({ "region": "there", "connection_budget": 5 })).await;
    let tenants = bed.tenants_in("there", 8).await;
    let (greedy, others) = tenants.split_at(2);
    for tenant in greedy {
        until_served(&bed, 0, tenant).await;
    }
    let has_all = |share: &Value| share["share"] == 5 && share["is_anchored"] == true;
    until_shares(&bed, "the data plane does not have all", |shares| shares.len() == 1 && has_all(&shares[0])).await;
    let mut locks = Vec::new();
    for tenant in greedy {
        let (database, _) = bed.registry_row(tenant).await;
        let owner = server.look(&database).await;
        let lock = owner.begin().await.unwrap();
        lock.execute_unprepared("LOCK TABLE pets").await.unwrap();
        locks.push((owner, lock));
    }
    // Each of the two has as many at once as its plan has connections. That is all but the anchor.
    let held: Vec<_> = greedy
        .iter()
        .flat_map(|tenant| [tenant; 2])
        .map(|tenant| tokio::spawn(send(bed.request(0, "GET", "/api/pets").bearer_auth(&tenant.key))))
        .collect();
    let watch = server.look("postgres").await;
    until_locked_out(&watch, 4).await;
    assert_eq!(number(&watch, OURS).await, 5);
    let before = bed.metric(0, "data_plane_connection_refusals_total").await;
    for answer in join_all(others.iter().map(|tenant| bed.get(0, tenant, "/api/pets"))).await {
        assert_is_told_busy(&answer);
    }
    let told = bed.metric(0, "data_plane_connection_refusals_total").await - before;
    assert!((told - 6.0).abs() < 0.1, "each was refused once: {told}");
    assert_eq!(number(&watch, OURS).await, 5, "none was opened beyond the budget");
    for (_, lock) in locks {
        lock.commit().await.unwrap();
    }
    for answer in join_all(held).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    join_all(others.iter().map(|tenant| until_served(&bed, 0, tenant))).await;
    assert_names_no_tenant(&bed, &tenants).await;
}

/// Until so many data planes are known, and one of them has a budget of two; which one it is.
async fn until_one_has_both(bed: &Bed, nodes: usize) -> usize {
    let is_so = |shares: &[Value]| {
        let count = |number: i64| shares.iter().filter(|share| share["share"] == number).count();
        shares.len() == nodes && count(0) == nodes - 1 && count(2) == 1
    };
    let shares = until_shares(bed, "no data plane has both connections", is_so).await;
    (0..bed.data.len()).find(|node| share_of(bed, &shares, *node) == 2).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_more_data_planes_than_connections_one_serves_and_another_once_that_one_stops() {
    let server = Postgres::start_with(&["max_connections=40"]);
    let mut bed = Bed::start_with(Store::Sqlite, 1, 3, BRIEF).await;
    // An anchor, and a connection to work with: there is no share for a second data plane.
    bed.register("small", &server.url(), &json!({ "region": "there", "connection_budget": 2 })).await;
    let tenants = bed.tenants_in("there", 2).await;
    let first = until_one_has_both(&bed, 3).await;
    for tenant in &tenants {
        until_served(&bed, first, tenant).await;
    }
    until_told(&mut bed, "server_data_planes_without_share", |without| (1.9..2.1).contains(&without)).await;
    let others: Vec<usize> = (0..3).filter(|node| *node != first).collect();
    for answer in join_all(others.iter().map(|node| bed.get(*node, &tenants[0], "/api/pets"))).await {
        assert_is_told_busy(&answer);
    }
    // They have told by now what they need, and take nothing away by it.
    let dealt = shares(&bed).await;
    let taken: i64 = others.iter().map(|node| share_of(&bed, &dealt, *node)).sum();
    assert_eq!((share_of(&bed, &dealt, first), taken), (2, 0), "{dealt:?}");
    bed.data[first].stop();
    let second = until_one_has_both(&bed, 2).await;
    assert!(others.contains(&second), "{second} of {others:?}");
    for tenant in &tenants {
        until_served(&bed, second, tenant).await;
    }
    for node in others.into_iter().filter(|node| *node != second) {
        assert_is_told_busy(&bed.get(node, &tenants[0], "/api/pets").await);
    }
}

/// Until the control plane's gauge is as it should be. It looks when it starts, and then once a minute.
async fn until_told(bed: &mut Bed, gauge: &str, is_so: impl Fn(f64) -> bool) {
    bed.control[0].restart();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let told = bed.control_metric(gauge).await;
        if is_so(told) {
            return;
        }
        assert!(Instant::now() < deadline, "{gauge} is {told}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_others_have_filled_is_told_of_and_goes_on_serving() {
    let server = Postgres::start_with(&["max_connections=40"]);
    let mut bed = Bed::start_with(Store::Sqlite, 1, 1, BRIEF).await;
    bed.register("small", &server.url(), &json!({ "region": "there", "connection_budget": 10 })).await;
    let tenants = bed.tenants_in("there", 2).await;
    until_served(&bed, 0, &tenants[0]).await;
    let watch = server.look("postgres").await;
    // Some slots are for superusers alone, such as the control plane and the harness.
    watch.execute_unprepared("CREATE ROLE somebody LOGIN PASSWORD 'somebody'").await.unwrap();
    let mut options = ConnectOptions::new(format!("postgres://somebody:somebody@{}/postgres", server.place()));
    options.max_connections(1).sqlx_logging(false).acquire_timeout(Duration::from_millis(300));
    let mut taken = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let found = loop {
        // The control plane's own sessions come and go: what they leave is taken, too.
        while let Ok(one) = service::pool::open(options.clone()).await {
            taken.push(one);
        }
        let found = bed.findings().await;
        if !found.is_empty() {
            break found;
        }
        assert!(Instant::now() < deadline, "nothing is found, and others have {} sessions", taken.len());
    };
    let kinds: Vec<_> = found.iter().map(|finding| (&finding["kind"], &finding["server"])).collect();
    assert_eq!(kinds, [(&json!("server_full"), &json!("small"))], "{found:?}");
    assert_eq!(bed.get(0, &tenants[0], "/api/pets").await.status, 200, "it has a connection");
    until_told(&mut bed, "server_connections_missing", |missing| missing > 0.5).await;
    drop(taken);
    until_served(&bed, 0, &tenants[1]).await;
    bed.assert_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_opened_no_faster_than_the_servers_connect_rate() {
    let server = Postgres::start_with(&["max_connections=40"]);
    // Longer than it takes to open all.
    let tuning = Tuning { data: "[pools]\nwait_ms = 25000\n", ..Tuning::DEFAULT };
    let bed = Bed::start_with(Store::Sqlite, 1, 1, tuning).await;
    bed.register("small", &server.url(), &json!({ "region": "there", "connect_rate": 2 })).await;
    let tenants = bed.tenants_in("there", 7).await;
    let begun = Instant::now();
    for answer in join_all(tenants.iter().map(|tenant| bed.get(0, tenant, "/api/pets"))).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let opened = bed.metric(0, "data_plane_connection_opens_total").await;
    // An eighth of a second's worth may come at once, which is one.
    let most = 1.0 + 2.0 * begun.elapsed().as_secs_f64();
    assert!(opened > 6.9, "each tenant has a connection of its own: {opened}");
    assert!(opened <= most, "{opened} were opened where there may be {most}");
}
