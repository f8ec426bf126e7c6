//! A tenant's connections are replaced on every data plane, and no request fails for it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use futures_util::future::join_all;
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};

use crate::audit::records;
use crate::bed::{Bed, PATIENCE, Store, Tenant, send};
use crate::cli::freehold;
use crate::on_both;

/// Clients of each node.
const CLIENTS: usize = 4;
const RECONNECT: &str = "/v1/tenants/acme/reconnect";

/// The server's processes that serve data planes in the tenant's database, by the names of their sessions, which are the nodes'.
async fn sessions(bed: &Bed, tenant: &Tenant) -> BTreeSet<(String, i32)> {
    let (database, _) = bed.registry_row(tenant).await;
    let admin = service::pool::open(bed.superuser_url()).await.unwrap();
    let query = Statement::from_sql_and_values(
        admin.get_database_backend(),
        "SELECT application_name, pid FROM pg_stat_activity WHERE datname = $1",
        [database.into()],
    );
    let rows = admin.query_all_raw(query).await.unwrap();
    admin.close().await.unwrap();
    rows.iter().map(|row| (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap())).collect()
}

fn nodes(sessions: &BTreeSet<(String, i32)>) -> BTreeSet<&str> {
    sessions.iter().map(|(node, _)| node.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_connections_of_a_tenant_are_replaced_on_every_node_and_no_request_fails() {
    let bed = Bed::start(Store::Postgres, 1, 2).await;
    let (acme, globex) = (bed.tenant("acme").await, bed.tenant("globex").await);
    bed.until(&acme, "/api/pets", 200).await;
    bed.until(&globex, "/api/pets", 200).await;
    let untouched = sessions(&bed, &globex).await;
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = join_all((0..2 * CLIENTS).map(|client| {
        let (bed, acme, is_over, answered) = (&bed, &acme, &is_over, &answered);
        async move {
            while !is_over.load(SeqCst) {
                let pet = json!({ "name": "Load", "species": "cat" });
                let answer = send(bed.request(client % 2, "POST", "/api/pets").bearer_auth(&acme.key).json(&pet)).await;
                assert_eq!(answer.status, 201, "{answer:?}");
                answered.fetch_add(1, SeqCst);
            }
        }
    }));
    let replaced = async {
        for _ in 0..3 {
            let before = answered.load(SeqCst);
            while answered.load(SeqCst) < before + 10 {
                tokio::task::yield_now().await;
            }
            let old = sessions(&bed, &acme).await;
            assert_eq!(nodes(&old).len(), 2, "{old:?}");
            let answer = loop {
                let answer = bed.operator("POST", RECONNECT, None).await;
                if answer.status != 429 {
                    break answer;
                }
            };
            assert_eq!(answer.status, 200, "{answer:?}");
            let told = answer.json();
            assert_eq!((&told["nodes_behind"], &told["tenant"]["slug"]), (&json!(0), &json!("acme")), "{told}");
            assert_eq!(told["revision"].as_i64(), Some(bed.registry_head().await), "{told}");
            // All are told to be through: nothing of before is left on the server.
            let now = sessions(&bed, &acme).await;
            let kept: Vec<_> = old.intersection(&now).collect();
            assert!(kept.is_empty(), "{kept:?} of {old:?}");
        }
        is_over.store(true, SeqCst);
    };
    futures_util::join!(load, replaced);
    bed.until(&acme, "/api/pets", 200).await;
    assert_eq!(nodes(&sessions(&bed, &acme).await).len(), 2);
    bed.until(&globex, "/api/pets", 200).await;
    assert_eq!(sessions(&bed, &globex).await, untouched, "another tenant's connections stay");
}

on_both!(connections_are_replaced_by_operators_at_most_once_a_second_and_it_is_told, 1, 1);
async fn connections_are_replaced_by_operators_at_most_once_a_second_and_it_is_told(bed: Bed) {
    let acme = bed.tenant("acme").await;
    bed.until(&acme, "/api/pets", 200).await;
    let done = freehold(&bed, &["tenant", "reconnect", "acme", "--json"]).await;
    assert!(done.status.success(), "{done:?}");
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(told["nodes_behind"], 0, "{told}");

    // One of those that are sent at once is taken, whoever comes first.
    let deadline = std::time::Instant::now() + PATIENCE;
    let answers = loop {
        let answers = join_all((0..4).map(|_| bed.operator("POST", RECONNECT, None))).await;
        if answers.iter().any(|answer| answer.status == 200) {
            break answers;
        }
        assert!(std::time::Instant::now() < deadline, "{answers:?}");
    };
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!((taken.len(), refused.len()), (1, 3), "{refused:?}");
    for answer in &refused {
        assert_eq!((answer.status, answer.kind().as_str()), (429, "too-many-reconnects"), "{answer:?}");
        assert_eq!(answer.header("retry-after"), "1", "{answer:?}");
    }
    bed.until(&acme, "/api/pets", 200).await;
    let all = records(&bed, &format!("tenant={}&action=tenant.reconnected", acme.id), 2).await;
    let acts: Vec<_> = all.iter().filter(|it| it["payload"]["action"] == "tenant.reconnected").collect();
    assert_eq!(acts.len(), 2, "{acts:?}");
    assert!(acts.iter().all(|it| it["chain"] == json!(acme.id) && it["payload"]["actor"] == "tests"), "{acts:?}");

    // Only for those who may work on tenants, and only where there are connections.
    let viewer = bed.new_operator("watcher", "viewer").await;
    let call = bed.client.post(format!("{}{RECONNECT}", bed.control[0].url));
    assert_eq!(send(call.bearer_auth(viewer)).await.status, 403);
    bed.done("POST", "/v1/tenants/acme/suspend", None).await;
    let refused = bed.operator("POST", RECONNECT, None).await;
    assert_eq!((refused.status, refused.kind().as_str()), (409, "illegal-transition"), "{refused:?}");
    assert_eq!(bed.operator("POST", "/v1/tenants/nobody/reconnect", None).await.status, 404);
}
