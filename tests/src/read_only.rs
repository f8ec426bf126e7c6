//! A registry whose server takes no writes for a while, or whose tables changed under running control planes: it heals by itself.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use crate::bed::{Answer, Bed, PATIENCE, Store, send};

/// As many calls at once as the control plane has connections to its registry.
const AT_ONCE: usize = 16;

async fn ready(bed: &Bed) -> Answer {
    send(bed.client.get(format!("{}/readyz", bed.control[0].ops_url))).await
}

/// Writes of the registry, all at once.
async fn write(bed: &Bed, round: usize) -> Vec<Answer> {
    let writes = (0..AT_ONCE).map(|number| async move {
        let plan = json!({ "connections": 1 + round, "concurrency": 10 });
        bed.operator("PUT", &format!("/v1/plans/plan-{number}"), Some(plan)).await
    });
    join_all(writes).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_took_no_writes_for_a_moment_takes_them_within_seconds() {
    let mut bed = Bed::start(Store::Postgres, 1, 1).await;
    let acme = bed.tenant("acme").await;
    bed.until(&acme, "/api/pets", 200).await;
    assert_eq!(ready(&bed).await.status, 200);

    bed.refuse_registry_writes(true).await;
    let deadline = Instant::now() + PATIENCE;
    let unready = loop {
        let answer = ready(&bed).await;
        if answer.status == 503 && answer.text.contains("takes no writes") {
            break answer.json();
        }
        assert!(Instant::now() < deadline, "it says to be ready: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((&unready["status"], &unready["failing"][0]["name"]), (&json!("unready"), &json!("registry")));
    for _ in 0..2 {
        let refused = write(&bed, 0).await.into_iter().find(|answer| answer.kind() == "database-unavailable");
        let refused = refused.expect("writes are refused");
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
    }
    // A node that starts now is told so by its first call.
    let control = bed.control[0].url.clone();
    bed.add_node(&control);
    while !bed.data[1].log().contains("it cannot answer now") {
        assert!(Instant::now() < deadline, "the node does not tell: {}", bed.data[1].log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bed.get(0, &acme, "/api/pets").await.status, 200, "what a node knows it serves");

    // No session ends by it: each that began meanwhile refuses writes for as long as it lives.
    bed.refuse_registry_writes(false).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    for round in 1.. {
        let answers = write(&bed, round).await;
        if answers.iter().all(|answer| answer.status < 300) {
            break;
        }
        assert!(Instant::now() < deadline, "writes are still refused: {answers:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for round in 20..24 {
        let refused = write(&bed, round).await.into_iter().find(|answer| answer.status >= 300);
        assert!(refused.is_none(), "a session of before is still used: {refused:?}");
    }
    assert_eq!(ready(&bed).await.status, 200);
    let globex = bed.tenant("globex").await;
    bed.until(&globex, "/api/pets", 200).await;
    for node in &bed.data {
        let log = node.log();
        let misleading = log.lines().find(|line| line.contains("control.url"));
        assert_eq!(misleading, None, "the address is right");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_whose_tables_changed_under_a_control_plane_is_read_and_written() {
    let bed = Bed::start(Store::Postgres, 1, 0).await;
    bed.tenant("acme").await;
    let list = || async { join_all((0..AT_ONCE).map(|_| bed.operator("GET", "/v1/tenants", None))).await };
    // Each connection has its plans.
    for _ in 0..3 {
        list().await;
    }
    let registry = bed.registry().await;
    registry.execute_unprepared("ALTER TABLE tenants ALTER COLUMN name TYPE text").await.unwrap();
    registry.close().await.unwrap();
    let failed = list().await.into_iter().find(|answer| answer.status != 200);
    assert!(failed.is_none(), "it is read on another connection: {failed:?}");

    // What a transaction did before is not done again: its caller is told to come again, once at most for each that was at work.
    let registry = bed.registry().await;
    registry.execute_unprepared("ALTER TABLE tenants ALTER COLUMN name TYPE varchar").await.unwrap();
    registry.close().await.unwrap();
    let (mut acts, mut refused) = (["suspend", "resume"].iter().cycle(), 0);
    for _ in 0..8 {
        let act = acts.next().unwrap();
        loop {
            let answer = bed.operator("POST", &format!("/v1/tenants/acme/{act}"), None).await;
            if answer.status == 200 {
                break;
            }
            refused += 1;
            assert_eq!((answer.status, answer.kind().as_str()), (503, "database-unavailable"), "{answer:?}");
            assert!(refused < 3, "{answer:?}");
        }
    }
    let tenant: Value = bed.done("GET", "/v1/tenants/acme", None).await;
    assert_eq!(tenant["status"], "active");
}
