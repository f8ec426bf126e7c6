//! What goes wrong in a rollout: the others go on, each failure has its reason and its exit code, and what is told of every
//! tenant is what its database says.

use std::process::Output;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use super::truth::told_truly;
use crate::bed::{Bed, PATIENCE, Store, Tenant, Tuning};
use crate::cli::freehold;
use crate::on_both;
use crate::postgres::Postgres;

/// Whatever is done in a tenant's database.
async fn execute(bed: &Bed, tenant: &Tenant, sql: &str) {
    let database = service::pool::open(bed.database_url(tenant).await).await.unwrap();
    database.execute_unprepared(sql).await.unwrap();
    database.close().await.unwrap();
}

/// The newest rollout.
async fn newest(bed: &Bed) -> Value {
    bed.done("GET", "/v1/rollouts?limit=1", None).await["items"][0].clone()
}

/// What the command line says of what went wrong, once it has ended with this exit code.
fn said(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Some tenants have data that a migration does not bear, and one makes it panic.
async fn what_fails_is_told_and_a_retry_ends_it(store: Store, count: usize) {
    let bed = Bed::start_of("counted-control-plane", store, 1, Tuning::DEFAULT).await;
    bed.new_tenants_get(2).await;
    let mut tenants = bed.tenants(count).await;
    // In the order in which a rollout goes through them: the first is the canary.
    tenants.sort_by(|one, other| one.id.cmp(&other.id));
    let [twice @ .., panics] = &tenants[1..5] else { panic!("there are as many") };
    for tenant in twice {
        execute(&bed, tenant, "INSERT INTO words VALUES ('twice'), ('twice')").await;
    }
    execute(&bed, panics, "INSERT INTO words VALUES ('panic')").await;
    bed.done("POST", &format!("/v1/tenants/{}/suspend", tenants[5].slug), None).await;

    // None may fail: nothing new begins.
    let spent = freehold(&bed, &["fleet", "migrate", "--max-failed", "0", "--waves", "50"]).await;
    assert!(said(&spent, 2).contains("the error budget is spent"), "{spent:?}");
    let rollout = newest(&bed).await;
    let targets = told_truly(&bed, &rollout, &tenants).await;
    let begun = targets.values().filter(|it| it["state"] != "pending").count();
    assert!((2..=count.div_ceil(2)).contains(&begun), "{begun} were begun");
    assert!(freehold(&bed, &["fleet", "abort"]).await.status.success());

    // All of them may, but for the canary, which is of those that were not begun: every other is done.
    let canary = &tenants[count - 1].slug;
    let borne = freehold(&bed, &["fleet", "migrate", "--max-failed", "4", "--canary", canary]).await;
    let text = said(&borne, 1);
    for tenant in twice {
        let why = format!("FAILED {}: could not apply the migration third: the server refused it with ", tenant.slug);
        assert!(text.contains(&why), "{text}");
    }
    assert!(
        text.contains(&format!("FAILED {}: could not apply the migration third: it panicked", panics.slug)),
        "{text}"
    );
    let rollout = newest(&bed).await;
    assert_eq!((&rollout["state"], &rollout["counts"]["failed"]), (&json!("done"), &json!(4)), "{rollout}");
    let targets = told_truly(&bed, &rollout, &tenants).await;
    assert!(targets.values().filter(|it| it["state"] == "failed").all(|it| it["error"].is_string()));
    let id = rollout["id"].as_str().unwrap();
    let status = freehold(&bed, &["fleet", "status", id]).await;
    assert!(String::from_utf8_lossy(&status.stdout).contains("it panicked"), "{status:?}");

    for tenant in twice.iter().chain([panics]) {
        execute(&bed, tenant, "DELETE FROM words").await;
    }
    assert!(freehold(&bed, &["fleet", "retry"]).await.status.success());
    let watched = freehold(&bed, &["fleet", "watch"]).await;
    assert!(watched.status.success(), "{watched:?}");
    let targets = told_truly(&bed, &newest(&bed).await, &tenants).await;
    assert!(targets.values().all(|it| it["state"] == "done"), "{targets:?}");
}

mod what_fails_is_told_and_a_retry_ends_it {
    use super::Store;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_sqlite() {
        super::what_fails_is_told_and_a_retry_ends_it(Store::Sqlite, 200).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_postgres() {
        super::what_fails_is_told_and_a_retry_ends_it(Store::Postgres, 16).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_restarts_in_the_middle_of_a_migration_is_waited_for() {
    let mut server = Postgres::start();
    let bed = Bed::start_of("counted-control-plane", Store::Postgres, 1, Tuning::DEFAULT).await;
    bed.new_tenants_get(1).await;
    // Every tenant is on the server that goes away; the registry is not.
    bed.done("PATCH", "/v1/servers/local", Some(json!({ "state": "draining" }))).await;
    let own = json!({ "name": "own", "engine": "postgres", "region": "here", "admin_url": server.url(),
        "capacity": 100, "connection_budget": 50, "warm": 0 });
    bed.done("POST", "/v1/servers", Some(own)).await;
    bed.tenants(12).await;
    let (sprung, heard) = channel();
    bed.control[0].freeze_at(sprung, |line| line["message"] == "the third migration is at work");
    let order = json!({ "settings": { "canary": 0, "waves": [], "concurrency": 4, "attempts": 20 } });
    let url = format!("{}/v1/rollouts", bed.control[0].url);
    let asked = tokio::spawn(bed.client.post(url).bearer_auth(&bed.token).json(&order).send());
    let frozen = tokio::task::spawn_blocking(move || heard.recv_timeout(PATIENCE)).await.unwrap();
    assert!(frozen.is_ok(), "no migration was ever at work");
    server.stop();
    bed.control[0].thaw();
    assert_eq!(asked.await.unwrap().unwrap().status(), 201);
    let rollout = newest(&bed).await;
    let id = rollout["id"].as_str().unwrap();
    let targets = format!("/v1/rollouts/{id}/targets");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let targets = bed.all(&targets, 200).await;
        let mut errors = targets.iter().filter_map(|it| it["error"].as_str());
        if errors.any(|error| error.contains("the server does not answer")) {
            break;
        }
        assert!(Instant::now() < deadline, "nobody says what they wait for: {targets:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.restart();
    let ended = bed.until_rollout(id, |now| now["state"] != "running").await;
    assert_eq!((&ended["state"], &ended["counts"]["done"]), (&json!("done"), &json!(12)), "{ended}");
    for target in bed.all(&targets, 200).await {
        assert_eq!((&target["state"], &target["version_after"]), (&json!("done"), &json!(3)), "{target}");
    }
}

on_both!(a_tenant_whose_table_is_held_keeps_no_other_waiting_and_is_served, 1, 1);
async fn a_tenant_whose_table_is_held_keeps_no_other_waiting_and_is_served(bed: Bed) {
    bed.new_tenants_get(1).await;
    let tenants = bed.tenants(4).await;
    let held = &tenants[1];
    let database = service::pool::open(bed.database_url(held).await).await.unwrap();
    let long = sea_orm::TransactionTrait::begin(&database).await.unwrap();
    let lock = match bed.store {
        Store::Postgres => "LOCK TABLE pets IN ACCESS SHARE MODE",
        Store::Sqlite => "UPDATE pets SET name = name",
    };
    long.execute_unprepared(lock).await.unwrap();
    let order = json!({ "settings": { "canary": 0, "waves": [], "lock_timeout_ms": 50, "attempts": 100 } });
    let rollout = bed.done("POST", "/v1/rollouts", Some(order)).await;
    let id = rollout["id"].as_str().unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = bed.get(0, held, "/api/pets").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let targets = bed.all(&format!("/v1/rollouts/{id}/targets"), 200).await;
        let waits = targets.iter().find(|it| it["slug"] == held.slug).unwrap();
        let is_told = waits["error"].as_str().is_some_and(|error| error.contains("others hold what it needs"));
        if is_told && targets.iter().all(|it| it["slug"] == held.slug || it["state"] == "done") {
            break;
        }
        assert!(Instant::now() < deadline, "{targets:?}");
    }
    long.rollback().await.unwrap();
    database.close().await.unwrap();
    let ended = bed.until_rollout(id, |now| now["state"] != "running").await;
    let targets = told_truly(&bed, &ended, &tenants).await;
    assert!(targets.values().all(|it| it["state"] == "done"), "{targets:?}");
    bed.until(held, "/api/pets", 200).await;
}

on_both!(of_two_operators_one_begins_and_what_makes_no_sense_changes_nothing, 1, 0);
async fn of_two_operators_one_begins_and_what_makes_no_sense_changes_nothing(bed: Bed) {
    bed.new_tenants_get(1).await;
    let tenants = bed.tenants(3).await;
    for (typed, why) in
        [(["--only", "tenant-0,nobody"], "there is no tenant nobody"), (["--to", "99"], "there is no version 99")]
    {
        let refused = freehold(&bed, &[&["fleet", "migrate"], &typed[..]].concat()).await;
        assert!(said(&refused, 1).contains(why), "{refused:?}");
    }
    assert_eq!(bed.done("GET", "/v1/rollouts", None).await["items"], json!([]));
    // It waits after its canary, so that it is at work when the other comes, whenever that is.
    let migrate = ["fleet", "migrate", "--confirm", "--no-wait"];
    let (one, other) = tokio::join!(freehold(&bed, &migrate), freehold(&bed, &migrate));
    let lost = if one.status.success() { other } else { one };
    let text = said(&lost, 1);
    assert!(text.contains("is at work on tenants of this one") && text.contains("`freehold fleet watch"), "{text}");
    let begun = bed.all("/v1/rollouts", 200).await;
    assert_eq!(begun.len(), 1, "{begun:?}");
    let late = freehold(&bed, &migrate).await;
    let id = begun[0]["id"].as_str().unwrap();
    assert!(said(&late, 1).contains(&format!("`freehold fleet watch {id}`")), "{late:?}");
    bed.until_rollout(id, |now| now["state"] == "paused").await;
    told_truly(&bed, &newest(&bed).await, &tenants).await;
}
