//! Fleet migrations by the command line, with both planes as processes.

mod faults;
mod kills;
mod load;
mod truth;

use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};

use crate::bed::{Bed, PATIENCE, Tenant};
use crate::cli::freehold;
use crate::on_both;

/// How many rows a table of a tenant's database has.
async fn rows(bed: &Bed, tenant: &Tenant, table: &str) -> usize {
    let database = service::pool::open(bed.database_url(tenant).await).await.unwrap();
    let count = Statement::from_string(database.get_database_backend(), format!("SELECT count(*) FROM {table}"));
    let count: i64 = database.query_one_raw(count).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    database.close().await.unwrap();
    usize::try_from(count).unwrap()
}

on_both!(a_fleet_is_rolled_out_by_the_command_line, 2, 1);
async fn a_fleet_is_rolled_out_by_the_command_line(bed: Bed) {
    let tenants = [bed.tenant("acme").await, bed.tenant("globex").await, bed.tenant("initech").await];
    let registry = bed.registry().await;
    let behind = "UPDATE tenants SET schema_version = 0, revision = revision";
    sea_orm::ConnectionTrait::execute_unprepared(&registry, behind).await.unwrap();
    let planned = freehold(&bed, &["fleet", "plan"]).await;
    let text = String::from_utf8_lossy(&planned.stdout).into_owned();
    assert!(
        planned.status.success() && text.contains("3 tenants to version") && text.contains("m0001_pets"),
        "{planned:?}"
    );
    assert!(text.contains("From version 0, on ") && text.to_uppercase().contains("CREATE TABLE"), "{text}");
    let done = freehold(&bed, &["fleet", "migrate", "--canary", "globex", "--json"]).await;
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let events: Vec<Value> =
        String::from_utf8_lossy(&done.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let begun = events.iter().find(|event| event["event"] != "finding").unwrap();
    assert_eq!((&begun["event"], &begun["targets"]), (&"rollout".into(), &3.into()), "{events:?}");
    assert!(events.iter().any(|event| event["event"] == "state" && event["state"] == "done"), "{events:?}");
    for tenant in &tenants {
        bed.until(tenant, "/api/pets", 200).await;
    }
    // There is nothing left to do, and pipelines may say so again.
    let again = freehold(&bed, &["fleet", "migrate"]).await;
    assert!(again.status.success() && again.stdout.starts_with(b"Nothing to do: 3 tenants"), "{again:?}");
    // A tenant that fails spends the budget: the pipeline stops.
    sea_orm::ConnectionTrait::execute_unprepared(&registry, behind).await.unwrap();
    let lost = "UPDATE databases SET name = 'fh_' || substr(name, 22) || substr(name, 4, 18)";
    sea_orm::ConnectionTrait::execute_unprepared(&registry, lost).await.unwrap();
    let spent = freehold(&bed, &["fleet", "migrate", "--attempts", "1"]).await;
    assert_eq!(spent.status.code(), Some(2), "{spent:?}");
    assert!(String::from_utf8_lossy(&spent.stderr).contains("the error budget is spent"), "{spent:?}");
    let status = freehold(&bed, &["fleet", "status"]).await;
    assert!(String::from_utf8_lossy(&status.stdout).contains("failed"), "{status:?}");
    let abort = freehold(&bed, &["fleet", "abort"]).await;
    assert!(abort.status.success(), "{abort:?}");
    let watched = freehold(&bed, &["fleet", "watch"]).await;
    assert_eq!(watched.status.code(), Some(1), "given up is not done: {watched:?}");
}

on_both!(drift_is_shown_by_the_command_line, 1, 0);
async fn drift_is_shown_by_the_command_line(bed: Bed) {
    let acme = bed.tenant("acme").await;
    bed.tenant("globex").await;
    let well = freehold(&bed, &["fleet", "verify"]).await;
    assert!(well.status.success() && well.stdout.starts_with(b"All is well: 2 tenants"), "{well:?}");
    let database = service::pool::open(bed.database_url(&acme).await).await.unwrap();
    let drift = "ALTER TABLE pets ADD COLUMN colour TEXT";
    sea_orm::ConnectionTrait::execute_unprepared(&database, drift).await.unwrap();
    database.close().await.unwrap();
    let drifted = freehold(&bed, &["fleet", "verify", "--sample", "2"]).await;
    let text = String::from_utf8_lossy(&drifted.stdout).to_lowercase();
    assert_eq!(drifted.status.code(), Some(1), "{drifted:?}");
    assert!(text.contains("acme on local differs from version") && text.contains("pets.colour text"), "{text}");
    let only = freehold(&bed, &["fleet", "verify", "--only", "globex"]).await;
    assert!(only.status.success(), "{only:?}");
}

on_both!(a_canary_whose_requests_fail_holds_the_rollout_until_it_is_resumed, 1, 2);
async fn a_canary_whose_requests_fail_holds_the_rollout_until_it_is_resumed(bed: Bed) {
    let acme = bed.tenant("acme").await;
    let others = [bed.tenant("globex").await, bed.tenant("initech").await];
    for tenant in others.iter().chain([&acme]) {
        bed.until(tenant, "/api/pets", 200).await;
    }
    let registry = bed.registry().await;
    let database = service::pool::open(bed.database_url(&acme).await).await.unwrap();
    let behind = "UPDATE tenants SET schema_version = 0, revision = revision";
    let order = json!({ "settings": {
        "canary": ["acme"], "waves": [], "health": { "seconds": 1, "requests": 20, "max_error_percent": 10.0 },
    } });
    // Its database is not what the product needs, as after a migration that broke it.
    for (change, status) in [("ALTER TABLE pets RENAME TO gone", 500), ("ALTER TABLE gone RENAME TO pets", 200)] {
        sea_orm::ConnectionTrait::execute_unprepared(&registry, behind).await.unwrap();
        sea_orm::ConnectionTrait::execute_unprepared(&database, change).await.unwrap();
        let rollout = bed.done("POST", "/v1/rollouts", Some(order.clone())).await;
        let id = rollout["id"].as_str().unwrap();
        bed.until_rollout(id, |now| now["watched_from"].is_string()).await;
        let deadline = std::time::Instant::now() + PATIENCE;
        let ended = loop {
            for node in 0..bed.data.len() {
                let answer = bed.get(node, &acme, "/api/pets").await;
                assert_eq!(answer.status, status, "{answer:?}");
            }
            let now = bed.done("GET", &format!("/v1/rollouts/{id}"), None).await;
            if now["state"] != "running" {
                break now;
            }
            assert!(std::time::Instant::now() < deadline, "{now}");
        };
        let targets = bed.done("GET", &format!("/v1/rollouts/{id}/targets"), None).await;
        let counted: Vec<(&str, u64, u64)> = targets["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| (it["slug"].as_str().unwrap(), it["requests"].as_u64().unwrap(), it["errors"].as_u64().unwrap()))
            .collect();
        assert!(counted.iter().all(|(slug, requests, _)| (*slug == "acme") == (*requests >= 20)), "{counted:?}");
        if status == 200 {
            assert_eq!((&ended["state"], counted.iter().map(|it| it.2).sum::<u64>()), (&json!("done"), 0), "{ended}");
            continue;
        }
        assert_eq!((&ended["state"], &ended["counts"]["pending"]), (&json!("paused"), &json!(2)), "{ended}");
        let note = ended["note"].as_str().unwrap();
        assert!(note.contains("were answered with a 5xx (100.0%), and 10% may be"), "{note}");
        bed.done("POST", &format!("/v1/rollouts/{id}/resume"), None).await;
        bed.until_rollout(id, |now| now["state"] == "done").await;
    }
}
