//! A registry that was restored from a backup: nodes converge to it, what it lacks is told, and nothing of before goes on.

use std::sync::mpsc::channel;

use serde_json::{Value, json};

use crate::bed::{Bed, PATIENCE, Store, Tuning};
use crate::on_both;

on_both!(nodes_converge_to_a_registry_that_was_restored_from_a_backup, 1, 2);
async fn nodes_converge_to_a_registry_that_was_restored_from_a_backup(mut bed: Bed) {
    let (kept, changed) = (bed.tenant("kept").await, bed.tenant("changed").await);
    bed.until(&kept, "/api/me", 200).await;
    bed.until(&changed, "/api/me", 200).await;
    bed.control[0].kill();
    let backup = bed.back_up_registry().await;
    bed.control[0].restart();
    // After the backup: one is suspended, one more comes, and both are known to the nodes.
    bed.done("POST", "/v1/tenants/changed/suspend", None).await;
    let lost = bed.tenant("lost").await;
    bed.until(&changed, "/api/me", 403).await;
    bed.until(&lost, "/api/me", 200).await;
    bed.control[0].kill();
    bed.restore_registry(&backup).await;
    // As the runbook has it.
    bed.control[0].restart_with(&["--restored"]);
    bed.until(&changed, "/api/me", 200).await;
    bed.until(&lost, "/api/me", 401).await;
    // What came after the backup is known to its server alone, and is told and left.
    let findings = bed.findings().await;
    let [found] = &findings[..] else { panic!("one thing differs: {findings:?}") };
    assert_eq!(found["kind"], "database_without_tenant", "{found}");
    assert!(found["detail"].as_str().unwrap().contains(&lost.id), "it says whose it is: {found}");
    for tenant in [&kept, &changed] {
        bed.until(tenant, "/api/me", 200).await;
    }
    // Another history, and nothing else: it can be begun at any time.
    let begun = bed.done("POST", "/v1/epoch", None).await;
    assert!(begun["epoch"].is_string() && begun["held"] == 0, "{begun}");
    bed.until(&kept, "/api/me", 200).await;
}

on_both!(nodes_converge_to_a_restored_registry_whose_control_plane_was_not_told, 1, 2);
async fn nodes_converge_to_a_restored_registry_whose_control_plane_was_not_told(mut bed: Bed) {
    let (kept, changed) = (bed.tenant("kept").await, bed.tenant("changed").await);
    bed.until(&kept, "/api/me", 200).await;
    bed.until(&changed, "/api/me", 200).await;
    bed.control[0].kill();
    let backup = bed.back_up_registry().await;
    bed.control[0].restart();
    bed.done("POST", "/v1/tenants/changed/suspend", None).await;
    let lost = bed.tenant("lost").await;
    bed.until(&changed, "/api/me", 403).await;
    bed.until(&lost, "/api/me", 200).await;
    bed.control[0].kill();
    bed.restore_registry(&backup).await;
    let epochs = "SELECT count(*) FROM audit WHERE action = 'registry.epoch-begun'";
    let before = (bed.registry_head().await, bed.registry_number(epochs).await);
    bed.control[0].restart();
    bed.until(&changed, "/api/me", 200).await;
    bed.until(&lost, "/api/me", 401).await;
    bed.until(&kept, "/api/me", 200).await;
    assert_eq!((bed.registry_head().await, bed.registry_number(epochs).await), before, "no node begins an epoch");
    // What each of them said is counted. It proves nothing: neither what was restored nor who was started since remembers it.
    assert!(bed.control_metric("control_plane_feed_ahead_total").await >= 2.0);
    assert!(bed.control_metric("control_plane_history_lost").await < 1.0);
    // They follow what comes.
    bed.done("POST", "/v1/tenants/kept/suspend", None).await;
    bed.until(&kept, "/api/me", 403).await;
    let nodes = bed.done("GET", "/v1/nodes", None).await;
    assert_eq!(nodes["items"].as_array().unwrap().len(), 2, "{nodes}");
}

const TUNING: Tuning = Tuning {
    tenants: "grace_seconds = 0\nlease_seconds = 1\n",
    telemetry: "filter = \"info,control_plane::provision=debug\"\n",
    ..Tuning::DEFAULT
};

/// Asks for something, and kills the control plane where it works on it.
async fn killed_at(bed: &Bed, step: &'static str, method: &str, path: &str, body: Option<Value>) {
    let (sprung, heard) = channel();
    bed.control[0].kill_at(sprung, move |line| line["message"] == "a step begins" && line["step"] == step);
    let call = bed.client.request(method.parse().unwrap(), format!("{}{path}", bed.control[0].url));
    let call = call.bearer_auth(&bed.token);
    let call = match body {
        Some(body) => call.json(&body),
        None => call,
    };
    // It may be killed before it has answered.
    let _ = call.send().await;
    assert!(
        tokio::task::spawn_blocking(move || heard.recv_timeout(PATIENCE)).await.unwrap().is_ok(),
        "never at {step}"
    );
}

async fn nothing_of_before_goes_on_in_a_registry_that_was_restored(store: Store) {
    let mut bed = Bed::start_with(store, 1, 0, TUNING).await;
    bed.tenant("going").await;
    bed.tenant("leaving").await;
    bed.tenant("turning").await;
    bed.control[0].kill();
    // The backup has a creation and a rotation half made, a deletion that is half done, and one that is due and was not begun.
    bed.control[0].restart();
    killed_at(&bed, "new_role", "POST", "/v1/tenants/turning/rotate-credentials", None).await;
    bed.control[0].restart_with(&["--restored"]);
    killed_at(&bed, "roles", "POST", "/v1/tenants", Some(json!({ "slug": "half", "name": "Half" }))).await;
    bed.control[0].restart_with(&["--restored"]);
    killed_at(&bed, "count_rows", "DELETE", "/v1/tenants/leaving", None).await;
    bed.control[0].restart_with(&["--restored"]);
    killed_at(&bed, "disconnect", "DELETE", "/v1/tenants/going", None).await;
    let backup = bed.back_up_registry().await;
    bed.restore_registry(&backup).await;
    bed.control[0].restart_with(&["--restored"]);

    // They were due long before what is done now: whoever does this has passed them by.
    bed.tenant("next").await;
    let all = bed.done("GET", "/v1/operations?held=true", None).await;
    let held: Vec<Value> = all["items"].as_array().unwrap().clone();
    assert_eq!(held.len(), 4, "{all}");
    assert!(held.iter().all(|it| it["held"] == true && it["finished_at"].is_null()), "{all}");
    for (slug, status) in
        [("half", "provisioning"), ("leaving", "deleting"), ("going", "deleting"), ("turning", "active")]
    {
        assert_eq!(bed.done("GET", &format!("/v1/tenants/{slug}"), None).await["status"], status);
    }
    let findings = bed.findings().await;
    let told = findings.iter().filter(|it| it["kind"] == "operation_held").count();
    assert_eq!((told, findings.len()), (4, 4), "{findings:?}");
    // What was begun cannot be called off, and says how it goes on.
    let refused = bed.operator("POST", "/v1/tenants/leaving/restore", None).await;
    assert_eq!((refused.status, refused.kind().as_str()), (409, "operation-held"), "{refused:?}");
    assert!(refused.text.contains("/retry"), "{refused:?}");
    // What would wait for it for ever is refused, and says what goes first.
    for (method, path) in [("DELETE", "/v1/tenants/turning"), ("POST", "/v1/tenants/turning/rotate-credentials")] {
        for query in ["", "?force=true"].into_iter().filter(|query| query.is_empty() || method == "POST") {
            let refused = bed.operator(method, &format!("{path}{query}"), None).await;
            assert_eq!((refused.status, refused.kind().as_str()), (409, "operation-held"), "{method}: {refused:?}");
            let first = held.iter().find(|it| it["kind"] == "rotate").unwrap()["id"].as_str().unwrap();
            assert!(refused.text.contains(&format!("/v1/operations/{first}/retry")), "{refused:?}");
        }
    }
    assert_eq!(bed.done("GET", "/v1/tenants/turning", None).await["status"], "active");

    for operation in held {
        let id = operation["id"].as_str().unwrap();
        let path = format!("/v1/operations/{id}");
        assert_eq!(bed.done("POST", &format!("{path}/retry"), None).await["held"], false);
        bed.until_ended(id).await;
        let ended = bed.done("GET", &path, None).await;
        assert_eq!((&ended["state"], &ended["held"]), (&json!("done"), &json!(false)), "{ended}");
    }
    assert_eq!(bed.done("GET", "/v1/tenants/half", None).await["status"], "active");
    assert_eq!(bed.done("POST", "/v1/tenants/turning/rotate-credentials", None).await["tenant"]["generation"], 3);
    bed.assert_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_before_goes_on_in_a_restored_registry_on_sqlite() {
    nothing_of_before_goes_on_in_a_registry_that_was_restored(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_before_goes_on_in_a_restored_registry_on_postgres() {
    nothing_of_before_goes_on_in_a_registry_that_was_restored(Store::Postgres).await;
}
