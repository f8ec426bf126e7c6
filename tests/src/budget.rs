//! A server's connections: all data planes together keep within its budget, serve more tenants than it has connections, and
//! come back from what happens to a connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sea_orm::{ConnectionTrait as _, DatabaseConnection};
use serde_json::{Value, json};

use crate::bed::{Answer, Bed, PATIENCE, Store, Tenant, Tuning, try_send};
use crate::postgres::{Postgres, number};

/// Registers a server of the test's own, and makes tenants there.
pub(crate) async fn tenants_on(bed: &Bed, server: &Postgres, count: usize) -> (Value, Vec<Tenant>) {
    let made = bed.register("small", &server.url(), &json!({ "region": "there" })).await;
    (made, bed.tenants_in("there", count).await)
}

pub(crate) const OURS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'freehold-data-plane%'";

/// What each process of a data plane may have of the test's own server.
pub(crate) async fn shares(bed: &Bed) -> Vec<Value> {
    let shown = bed.done("GET", "/v1/servers/small", None).await;
    shown["connections"]["shares"].as_array().unwrap().clone()
}

/// Until the shares are as they should be.
pub(crate) async fn until_shares(bed: &Bed, what: &str, is_so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shares = shares(bed).await;
        if is_so(&shares) {
            return shares;
        }
        assert!(Instant::now() < deadline, "{what}: {shares:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What one of the bed's data planes may have; nothing if none of the shares is its own.
pub(crate) fn share_of(bed: &Bed, shares: &[Value], node: usize) -> i64 {
    let id = std::fs::read_to_string(bed.folder.path().join(format!("node-{node}/node-id"))).unwrap();
    let own = shares.iter().find(|share| share["node"] == id.trim());
    own.map_or(0, |share| share["share"].as_i64().unwrap())
}

/// Until so many statements of data planes wait for a lock.
pub(crate) async fn until_locked_out(watch: &DatabaseConnection, wanted: i64) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND application_name LIKE 'freehold-data-plane%'";
    let deadline = Instant::now() + PATIENCE;
    while number(watch, waiting).await != wanted {
        assert!(Instant::now() < deadline, "there are not {wanted} that wait for the lock");
    }
}

/// What was answered, counted by what it means to a budget.
#[derive(Debug, Default)]
struct Answers {
    served: usize,
    busy: usize,
    others: Vec<Answer>,
}

impl Answers {
    fn count(mut self, answer: Option<Answer>) -> Self {
        match answer {
            Some(answer) if answer.status == 200 => self.served += 1,
            Some(answer) if answer.kind() == "server-busy" => self.busy += 1,
            Some(answer) => self.others.push(answer),
            // No answer at all: the node was killed.
            None => {}
        }
        self
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_never_exceeded_while_nodes_are_killed_and_come_back() {
    let server = Postgres::start_with(&["max_connections=40"]);
    let mut bed = Bed::start(Store::Sqlite, 1, 3).await;
    let (made, tenants) = tenants_on(&bed, &server, 60).await;
    let budget = made["connection_budget"].as_i64().unwrap();
    assert!((5..40).contains(&budget), "the budget is learned from the server: {made}");
    let shown = bed.done("GET", "/v1/servers/small", None).await;
    let closing = shown["connections"]["reserve_closing"].as_i64().unwrap();
    let watch = server.look("postgres").await;
    let is_over = Arc::new(AtomicBool::new(false));
    let watching = {
        let is_over = Arc::clone(&is_over);
        tokio::spawn(async move {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(number(&watch, OURS).await);
            }
            most
        })
    };
    let mut answers = Answers::default();
    for round in 0..6u64 {
        let victim = usize::try_from(round).unwrap() % bed.data.len();
        let (nodes, client) = (bed.data.iter().map(|node| node.url.clone()).collect::<Vec<_>>(), &bed.client);
        let (nodes, tenants) = (&nodes, &tenants);
        let asked = stream::iter(0..200u64).map(|request| async move {
            let mut random = StdRng::seed_from_u64(round * 1_000 + request);
            let (node, tenant) = (random.random_range(0..nodes.len()), random.random_range(0..tenants.len()));
            try_send(client.get(format!("{}/api/pets", nodes[node])).bearer_auth(&tenants[tenant].key)).await.ok()
        });
        let mut asked = Box::pin(asked.buffer_unordered(64));
        for _ in 0..100 {
            answers = answers.count(asked.next().await.unwrap());
        }
        // In the middle of it.
        let _ = std::process::Command::new("kill").arg("-KILL").arg(bed.data[victim].id().to_string()).status();
        while let Some(answer) = asked.next().await {
            answers = answers.count(answer);
        }
        drop(asked);
        bed.data[victim].restart();
    }
    is_over.store(true, Ordering::Relaxed);
    let most = watching.await.unwrap();
    assert!(most <= budget + closing, "{most} connections of {budget}");
    assert!(most > budget / 2, "the budget is used: {most} connections of {budget}");
    // A node that has only just started may not have heard its control plane yet.
    let strange = answers.others.iter().find(|answer| answer.kind() != "credential-unknown-now");
    assert_eq!(strange.map(|answer| &answer.text), None);
    assert!(answers.served > 300, "{answers:?}");
    // All of it is dealt to those that run.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = bed.done("GET", "/v1/servers/small", None).await;
        let shares = shown["connections"]["shares"].as_array().unwrap().clone();
        let dealt: i64 = shares.iter().map(|share| share["share"].as_i64().unwrap()).sum();
        let leaving = shares.iter().filter(|share| share["is_leaving"] == true).count();
        if dealt == budget && leaving == 0 && shares.len() == 3 {
            break;
        }
        assert!(Instant::now() < deadline, "the budget is not dealt out: {shown}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_a_full_server_gets_its_share() {
    let server = Postgres::start_with(&["max_connections=40"]);
    // Longer than the other node takes to give way, on a slow machine too.
    let tuning = Tuning { data: "[pools]\nwait_ms = 10000\n", ..Tuning::DEFAULT };
    let mut bed = Bed::start_with(Store::Sqlite, 1, 1, tuning).await;
    let (made, tenants) = tenants_on(&bed, &server, 24).await;
    let budget = made["connection_budget"].as_i64().unwrap();
    // More tenants than connections: the first node has all there are, and then they are idle.
    for tenant in &tenants {
        assert_eq!(bed.get(0, tenant, "/api/pets").await.status, 200);
    }
    let has_all = |share: &Value| share["share"] == budget && share["open"] == budget;
    until_shares(&bed, "the server is not full", |shares| shares.len() == 1 && has_all(&shares[0])).await;
    let control = bed.control[0].url.clone();
    bed.add_node(&control);
    bed.until_ready(1).await;
    let all_are_served = async || {
        let answers = join_all(tenants.iter().map(|tenant| bed.get(1, tenant, "/api/pets"))).await;
        assert_eq!(answers.iter().find(|answer| answer.status != 200).map(|answer| &answer.text), None);
    };
    // Its very first requests are served: what the other node has idle gives way.
    all_are_served().await;
    assert!(share_of(&bed, &shares(&bed).await, 1) >= 2, "an anchor, and a connection to work with");
    // It comes to have half, for as much as the other needs.
    let deadline = Instant::now() + PATIENCE;
    loop {
        all_are_served().await;
        let shares = shares(&bed).await;
        let [first, second] = [0, 1].map(|node| share_of(&bed, &shares, node));
        let is_given_up = shares.iter().all(|share| share["held"] == share["share"]);
        if second >= budget / 2 && first + second == budget && is_given_up {
            break;
        }
        assert!(Instant::now() < deadline, "it does not get its share of {budget}: {shares:?}");
    }
    // One that goes gives back what it had.
    bed.data[0].stop();
    until_shares(&bed, "it is not given back", |shares| shares.len() == 1 && shares[0]["share"] == budget).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_column_type_and_ended_sessions_cost_next_to_nothing() {
    let server = Postgres::start_with(&["max_connections=60"]);
    let bed = Bed::start(Store::Sqlite, 1, 1).await;
    let (_, tenants) = tenants_on(&bed, &server, 2).await;
    let warm = || join_all((0..16).map(|_| bed.get(0, &tenants[0], "/api/pets")));
    assert!(warm().await.iter().all(|answer| answer.status == 200));
    let (database, _) = bed.registry_row(&tenants[0]).await;
    let owner = server.look(&database).await;
    owner.execute_unprepared("ALTER TABLE pets ALTER COLUMN breed TYPE varchar(200)").await.unwrap();
    for _ in 0..4 {
        let answers = warm().await;
        assert_eq!(answers.iter().find(|answer| answer.status != 200).map(|answer| &answer.text), None);
    }
    // All sessions of both tenants are ended by hand.
    assert_eq!(bed.get(0, &tenants[1], "/api/pets").await.status, 200);
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE 'freehold-data-plane%'";
    assert!(number(&owner, end).await >= 2);
    let mut failed = 0;
    for _ in 0..8 {
        for tenant in &tenants {
            failed += usize::from(bed.get(0, tenant, "/api/pets").await.status != 200);
        }
    }
    assert!(failed <= 1, "{failed} requests paid for ended sessions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_began_read_only_is_not_used_for_ever() {
    let server = Postgres::start_with(&["max_connections=60"]);
    let bed = Bed::start(Store::Sqlite, 1, 1).await;
    let (_, tenants) = tenants_on(&bed, &server, 1).await;
    let (database, _) = bed.registry_row(&tenants[0]).await;
    let owner = server.look("postgres").await;
    owner
        .execute_unprepared(&format!("ALTER DATABASE \"{database}\" SET default_transaction_read_only = on"))
        .await
        .unwrap();
    assert_eq!(bed.get(0, &tenants[0], "/api/pets").await.status, 200);
    let pet = json!({ "name": "Rex", "species": "dog" });
    let post = || crate::bed::send(bed.request(0, "POST", "/api/pets").bearer_auth(&tenants[0].key).json(&pet));
    let refused = post().await;
    assert_eq!((refused.status, refused.kind().as_str()), (503, "database-unavailable"), "{refused:?}");
    owner
        .execute_unprepared(&format!("ALTER DATABASE \"{database}\" RESET default_transaction_read_only"))
        .await
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while post().await.status != 201 {
        assert!(Instant::now() < deadline, "it stays read-only");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_given_up_holds_no_connection() {
    let server = Postgres::start_with(&["max_connections=60"]);
    let tuning = Tuning { data: "[pools]\nwait_ms = 400\ndial_ms = 400\n", ..Tuning::DEFAULT };
    let bed = Bed::start_with(Store::Sqlite, 1, 1, tuning).await;
    let (_, tenants) = tenants_on(&bed, &server, 2).await;
    let (database, _) = bed.registry_row(&tenants[0]).await;
    let owner = server.look(&database).await;
    // Nothing but the client's going ends a statement.
    owner.execute_unprepared(&format!("ALTER ROLE \"{database}_a\" SET statement_timeout = 0")).await.unwrap();
    assert_eq!(bed.get(0, &tenants[0], "/api/pets").await.status, 200);
    let held = sea_orm::TransactionTrait::begin(&owner).await.unwrap();
    held.execute_unprepared("LOCK TABLE pets").await.unwrap();
    // As many as the plan has connections wait for the lock; the next is told what it waits for.
    let impatient: Vec<_> = (0..2)
        .map(|_| {
            let request =
                bed.request(0, "GET", "/api/pets").bearer_auth(&tenants[0].key).timeout(Duration::from_secs(5));
            tokio::spawn(try_send(request))
        })
        .collect();
    let watch = server.look("postgres").await;
    until_locked_out(&watch, 2).await;
    let exhausted = bed.get(0, &tenants[0], "/api/pets").await;
    assert_eq!((exhausted.status, exhausted.kind().as_str()), (503, "pool-exhausted"), "{exhausted:?}");
    assert!(exhausted.text.contains("All 2 database connections"), "{exhausted:?}");
    assert_eq!(bed.get(0, &tenants[1], "/api/pets").await.status, 200, "nobody else waits");
    for request in impatient {
        request.abort();
        let _ = request.await;
    }
    // Their statements end although the lock does not.
    until_locked_out(&watch, 0).await;
    held.commit().await.unwrap();
    bed.until(&tenants[0], "/api/pets", 200).await;
}
