//! Anchors: a server's connections that a gone data plane has left are dealt to others by themselves, those of one that lives
//! are not, and the budget is never exceeded meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use sea_orm::DatabaseConnection;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::bed::{Bed, Store, Tenant, Tuning};
use crate::budget::OURS;
use crate::postgres::{Postgres, number};
use crate::proxy::Proxy;
use crate::way::Way;

/// What is waited for takes as long as a node may be silent, half a minute, and some seconds more.
const PATIENCE: Duration = Duration::from_secs(100);

/// Planes, and a small server whose sessions are counted all the time.
struct Stage {
    bed: Bed,
    server: Postgres,
    tenants: Vec<Tenant>,
    budget: i64,
    most: i64,
    is_over: Arc<AtomicBool>,
    watching: JoinHandle<i64>,
}

impl Stage {
    async fn new(bed: Bed, nodes: usize, tenants: usize) -> Self {
        Self::on(small(), &json!({ "region": "there" }), bed, nodes, tenants).await
    }

    async fn on(server: Postgres, fields: &Value, mut bed: Bed, nodes: usize, tenants: usize) -> Self {
        let made = bed.register("small", &server.url(), fields).await;
        let tenants = bed.tenants_in("there", tenants).await;
        let control = bed.control[0].url.clone();
        for _ in bed.data.len()..nodes {
            bed.add_node(&control);
        }
        let shown = bed.done("GET", "/v1/servers/small", None).await;
        let budget = made["connection_budget"].as_i64().unwrap();
        let most = budget + shown["connections"]["reserve_closing"].as_i64().unwrap();
        let watch = server.look("postgres").await;
        let is_over = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&is_over);
        let watching = tokio::spawn(async move {
            let mut most = 0;
            while !ends.load(Ordering::Relaxed) {
                most = most.max(number(&watch, OURS).await);
            }
            most
        });
        let stage = Self { bed, server, tenants, budget, most, is_over, watching };
        for node in 0..nodes {
            stage.until_served(node).await;
        }
        stage
            .until("all have their anchors", |shares| {
                shares.len() == nodes && shares.iter().all(|share| share["is_anchored"] == true && share["share"] != 0)
            })
            .await;
        stage
    }

    async fn shares(&self) -> Vec<Value> {
        let shown = self.bed.done("GET", "/v1/servers/small", None).await;
        shown["connections"]["shares"].as_array().unwrap().clone()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&[Value]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shares = self.shares().await;
            if is_so(&shares) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: {shares:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Until one process has all of the budget.
    async fn until_one_has_all(&self) {
        let has_all = |share: &Value| share["share"].as_i64() == Some(self.budget) && share["is_leaving"] == false;
        self.until("the share of the other is freed", |shares| shares.len() == 1 && has_all(&shares[0])).await;
    }

    /// Asks one node for all tenants at once.
    async fn ask_all(&self, node: usize) -> Vec<u16> {
        self.ask(node, &self.tenants).await
    }

    async fn ask(&self, node: usize, tenants: &[Tenant]) -> Vec<u16> {
        let asked = tenants.iter().map(|tenant| async move {
            let sent = self.bed.request(node, "GET", "/api/pets").bearer_auth(&tenant.key);
            // A node that is stopped does not answer.
            let sent = crate::bed::try_send(sent.timeout(Duration::from_secs(10)));
            sent.await.map_or(0, |answer| answer.status)
        });
        join_all(asked).await
    }

    async fn until_served(&self, node: usize) {
        let deadline = Instant::now() + PATIENCE;
        while !self.ask_all(node).await.iter().all(|status| *status == 200) {
            assert!(Instant::now() < deadline, "node {node} does not serve all");
        }
    }

    async fn end(self) {
        self.is_over.store(true, Ordering::Relaxed);
        let most = self.watching.await.unwrap();
        assert!(most <= self.most, "{most} connections of {}", self.budget);
        let used = self.budget.min(i64::try_from(self.tenants.len()).unwrap()) / 2;
        assert!(most > used, "the budget is used: {most} connections of {}", self.budget);
        drop(self.server);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_moments_outage_tenants_without_a_connection_are_served_again() {
    let (server, bed) = (small(), Bed::start(Store::Sqlite, 1, 1).await);
    let way = Way::to(&server.place()).await;
    bed.register("small", &server.url(), &json!({ "region": "there", "data_address": way.address })).await;
    let tenants = bed.tenants_in("there", 4).await;
    let (cold, warm) = tenants.split_first().unwrap();
    for tenant in warm {
        bed.until(tenant, "/api/pets", 200).await;
    }
    // The port was free a moment ago: nobody listens there.
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let look = server.look("postgres").await;
    let first = number(&look, ANCHOR).await;
    way.lead_to(&nowhere);
    assert_eq!(bed.get(0, cold, "/api/pets").await.status, 503);
    // The idle connections of the others are dead, and nobody notices. No tenant asks before the anchor is open again.
    way.lead_to(&server.place());
    until_another_anchor(&look, first).await;
    bed.until(cold, "/api/pets", 200).await;
    for tenant in warm {
        bed.until(tenant, "/api/pets", 200).await;
    }
}

/// The process of the server that has the anchor; 0 if there is none.
const ANCHOR: &str = "SELECT coalesce(max(pid), 0)::int8 FROM pg_stat_activity WHERE application_name LIKE '%/anchor'";

/// Ends all sessions of data planes.
const END_ALL: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
    WHERE application_name LIKE 'freehold-data-plane%'";

async fn until_another_anchor(look: &DatabaseConnection, first: i64) {
    let deadline = Instant::now() + PATIENCE;
    while [0, first].contains(&number(look, ANCHOR).await) {
        assert!(Instant::now() < deadline, "there is no other anchor");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Connections that a data plane has open, and has not closed on its side.
async fn open_at(bed: &Bed, node: usize) -> f64 {
    let answer = crate::bed::send(bed.client.get(format!("{}/metrics", bed.data[node].ops_url))).await;
    let is_open = |line: &&str| {
        line.starts_with("db_client_connection_count{") && ["\"idle\"", "\"used\""].iter().any(|it| line.contains(it))
    };
    answer.text.lines().filter(is_open).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn small() -> Postgres {
    Postgres::start_with(&["max_connections=40"])
}

fn send(signal: &str, node: &crate::process::Process) {
    let sent = std::process::Command::new("kill").arg(signal).arg(node.id().to_string()).status().unwrap();
    assert!(sent.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_share_of_a_data_plane_that_was_killed_goes_to_others_by_itself() {
    let bed = Bed::start(Store::Sqlite, 1, 0).await;
    let mut stage = Stage::new(bed, 2, 24).await;
    stage.bed.data[0].kill();
    stage.until_one_has_all().await;
    stage.until_served(1).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sessions_of_a_stopped_data_plane_are_ended_and_it_serves_again_when_it_goes_on() {
    let tuning = Tuning { tenants: "grace_seconds = 0\nack_seconds = 30\n", ..Tuning::DEFAULT };
    let bed = Bed::start_with(Store::Sqlite, 1, 0, tuning).await;
    let stage = Stage::new(bed, 2, 24).await;
    // Only one dial is under way. With many, the node has closed most of its sessions, and the test cannot see a share freed early.
    stage.until_served(0).await;
    let one = &stage.tenants[..1];
    let (_, ()) = tokio::join!(stage.ask(0, one), async { send("-STOP", &stage.bed.data[0]) });
    stage.until_one_has_all().await;
    stage.until_served(1).await;
    send("-CONT", &stage.bed.data[0]);
    let ((), ()) = tokio::join!(stage.until_served(0), stage.until_served(1));
    stage.until("both have their shares", |shares| shares.len() == 2).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_plane_that_was_forgotten_and_goes_on_gets_what_the_others_leave() {
    let bed = Bed::start(Store::Sqlite, 1, 0).await;
    let stage = Stage::new(bed, 2, 24).await;
    stage.until_served(0).await;
    let id = std::fs::read_to_string(stage.bed.folder.path().join("node-0/node-id")).unwrap();
    send("-STOP", &stage.bed.data[0]);
    // As if its network were gone. The other opens new ones at once.
    let look = stage.server.look("postgres").await;
    number(&look, END_ALL).await;
    let forgotten = stage.bed.operator("DELETE", &format!("/v1/nodes/{}", id.trim()), None).await;
    assert_eq!(forgotten.status, 204, "{forgotten:?}");
    stage.until_one_has_all().await;
    stage.until_served(1).await;
    send("-CONT", &stage.bed.data[0]);
    stage
        .until("both have their shares", |shares| {
            let held: i64 = shares.iter().map(|share| share["held"].as_i64().unwrap()).sum();
            assert!(held <= stage.budget, "{held} of {}: {shares:?}", stage.budget);
            shares.len() == 2 && shares.iter().all(|share| share["share"] != 0)
        })
        .await;
    let ((), ()) = tokio::join!(stage.until_served(0), stage.until_served(1));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_plane_that_is_cut_off_from_the_control_plane_keeps_its_share_while_its_anchor_lives() {
    let tuning = Tuning { tenants: "grace_seconds = 0\nack_seconds = 30\n", ..Tuning::DEFAULT };
    let mut bed = Bed::start_with(Store::Sqlite, 1, 0, tuning).await;
    let (proxy, url) = Proxy::start(&bed.control[0].url, 1).await;
    bed.add_node(&url);
    let stage = Stage::new(bed, 2, 6).await;
    let before = stage.shares().await;
    let held = |shares: &[Value], node: &str| {
        let share = shares.iter().find(|share| share["node"] == node).unwrap();
        assert!(share["is_leaving"] == false && share["is_anchored"] == true, "{shares:?}");
        share["held"].as_i64().unwrap()
    };
    proxy.cut(true);
    let deadline = Instant::now() + PATIENCE;
    let silent = loop {
        // Both have enough for all tenants, and wait for nobody.
        let (cut_off, other) = tokio::join!(stage.ask_all(0), stage.ask_all(1));
        assert!(cut_off.iter().chain(&other).all(|status| *status == 200), "{cut_off:?} {other:?}");
        let nodes = stage.bed.done("GET", "/v1/nodes", None).await;
        let is_silent = |node: &&Value| {
            let heard: DateTime<Utc> = node["last_seen"].as_str().unwrap().parse().unwrap();
            Utc::now() - heard > TimeDelta::seconds(40)
        };
        if let Some(silent) = nodes["items"].as_array().unwrap().iter().find(is_silent) {
            break silent["id"].as_str().unwrap().to_owned();
        }
        assert!(Instant::now() < deadline, "it is still heard: {nodes}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(held(&stage.shares().await, &silent), held(&before, &silent));
    // Once it dies, it is as gone as any other.
    send("-KILL", &stage.bed.data[0]);
    stage.until_one_has_all().await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_opened_beside_sessions_whose_end_the_server_has_not_heard_of() {
    let (server, bed) = (small(), Bed::start(Store::Sqlite, 1, 0).await);
    let way = Way::to(&server.place()).await;
    let fields = json!({ "region": "there", "data_address": way.address });
    let stage = Stage::on(server, &fields, bed, 1, 24).await;
    let look = stage.server.look("postgres").await;
    let before = number(&look, OURS).await;
    let first = number(&look, ANCHOR).await;
    way.swallow();
    let deadline = Instant::now() + PATIENCE;
    while open_at(&stage.bed, 0).await > 0.0 {
        assert!(Instant::now() < deadline, "it keeps connections without an anchor");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(number(&look, OURS).await, before, "the server has heard of their ends");
    // A smaller share frees nothing that the server still has. The node tells what it has with each request of the feed.
    stage.bed.done("PATCH", "/v1/servers/small", Some(json!({ "connection_budget": 4 }))).await;
    for slug in ["heard", "told"] {
        let tenant = stage.bed.tenant(slug).await;
        stage.bed.until(&tenant, "/api/pets", 200).await;
    }
    let shares = stage.shares().await;
    assert!(shares[0]["share"] == 4 && shares[0]["held"].as_i64().unwrap() >= before, "{before} are there: {shares:?}");
    stage.bed.done("PATCH", "/v1/servers/small", Some(json!({ "connection_budget": stage.budget }))).await;
    way.open();
    until_another_anchor(&look, first).await;
    // Each waits for a connection, and is refused; the sessions are counted all the time.
    let answers = stage.ask_all(0).await;
    assert!(answers.iter().all(|status| *status == 503), "{answers:?}");
    way.forget();
    stage.until_served(0).await;
    stage.end().await;
}
