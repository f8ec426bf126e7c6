//! Every call of the API that changes something, and what the trail tells of it. A new call without a row here fails.

use std::collections::BTreeSet;

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use super::records;
use crate::bed::{Answer, Bed, Store, Tuning, send};

/// Deletions wait, so that one can be called off and another held.
const TUNING: Tuning = Tuning { tenants: "grace_seconds = 3600\n", ..Tuning::DEFAULT };

/// One call.
struct Row {
    method: &'static str,
    /// As the API's description names it.
    pattern: &'static str,
    path: String,
    body: Option<Value>,
    /// The actions that are told.
    told: &'static [&'static str],
    /// What is told as it was, and as it is.
    shows: (bool, bool),
}

/// The calls that change something, as the API's description has them.
fn changing(description: &Value) -> BTreeSet<(String, String)> {
    let mut calls = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, call) in item.as_object().unwrap() {
            let is_operators =
                call["security"].as_array().is_some_and(|all| all.iter().any(|one| one.get("operator").is_some()));
            if is_operators && ["post", "put", "patch", "delete"].contains(&method.as_str()) {
                calls.insert((method.to_uppercase(), path.clone()));
            }
        }
    }
    calls
}

struct Calls {
    bed: Bed,
    made: BTreeSet<(String, String)>,
}

impl Calls {
    async fn call(&mut self, row: Row) -> Answer {
        let Row { method, pattern, path, body, told, shows } = row;
        let request = format!("r-{}", self.made.len());
        let url = format!("{}{path}", self.bed.control[0].url);
        let call = self.bed.client.request(method.parse().unwrap(), url).bearer_auth(&self.bed.token);
        let call = call.header("x-request-id", &request).header("prefer", "wait=30");
        let answer = send(match body {
            Some(body) => call.json(&body),
            None => call,
        })
        .await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        let all = records(&self.bed, &format!("request_id={request}"), told.len()).await;
        let actions: Vec<_> = all.iter().rev().map(|it| it["payload"]["action"].as_str().unwrap()).collect();
        assert_eq!(actions, told, "{method} {path}: {all:?}");
        for record in &all {
            let payload = &record["payload"];
            assert_eq!((&payload["actor"], &payload["from"]), (&json!("tests"), &json!("127.0.0.1")), "{record}");
            let is_tenants = ["/v1/tenants", "/v1/operations", "/v1/doctor"].iter().any(|it| pattern.starts_with(it));
            assert_eq!(record["chain"] == "platform", !is_tenants, "{record}");
            assert!(!is_tenants || record["chain"] == payload["tenant"], "{record}");
            assert!(is_tenants || payload["subject"].is_string(), "{record}");
            let shown = (payload.get("before").is_some(), payload.get("after").is_some());
            assert_eq!(shown, shows, "{method} {path}: {record}");
        }
        assert!(self.made.insert((method.to_owned(), pattern.to_owned())) || pattern == "/v1/tenants/{tenant}");
        answer
    }
}

const NEITHER: (bool, bool) = (false, false);
const BEFORE: (bool, bool) = (true, false);
const AFTER: (bool, bool) = (false, true);
const BOTH: (bool, bool) = (true, true);

fn row(
    method: &'static str,
    pattern: &'static str,
    names: &[&str],
    body: Option<Value>,
    told: &'static [&'static str],
    shows: (bool, bool),
) -> Row {
    let mut names = names.iter();
    let path: Vec<&str> =
        pattern.split('/').map(|part| if part.starts_with('{') { names.next().unwrap() } else { part }).collect();
    Row { method, pattern, path: path.join("/"), body, told, shows }
}

#[allow(clippy::too_many_lines, reason = "it is a table")]
async fn every_call_that_changes_something_is_told(store: Store) {
    let bed = Bed::start_with(store, 1, 1, TUNING).await;
    let description = send(bed.client.get(format!("{}/openapi.json", bed.control[0].url))).await.json();
    let node = loop {
        let nodes = bed.done("GET", "/v1/nodes", None).await;
        if let Some(id) = nodes["items"][0]["id"].as_str() {
            break id.to_owned();
        }
    };
    let mut calls = Calls { bed, made: BTreeSet::new() };
    let t = "/v1/tenants/{tenant}";

    let plan = json!({ "connections": 2, "concurrency": 8 });
    calls.call(row("PUT", "/v1/plans/{name}", &["test"], Some(plan), &["plan.set"], BOTH)).await;
    let body = json!({ "slug": "acme", "name": "Acme", "plan": "test", "config": { "include_deleted_pets": true } });
    let made = calls.call(row("POST", "/v1/tenants", &[], Some(body), &["tenant.created"], AFTER)).await.json();
    let id = made["tenant"]["id"].as_str().unwrap().to_owned();
    calls.call(row("PATCH", t, &["acme"], Some(json!({ "name": "Acme 2" })), &["tenant.changed"], BOTH)).await;
    calls.call(row("POST", "/v1/tenants/{tenant}/suspend", &["acme"], None, &["tenant.suspended"], BOTH)).await;
    calls.call(row("POST", "/v1/tenants/{tenant}/resume", &["acme"], None, &["tenant.resumed"], BOTH)).await;
    let rotate = "/v1/tenants/{tenant}/rotate-credentials";
    calls.call(row("POST", rotate, &["acme"], None, &["tenant.rotation-ordered"], NEITHER)).await;
    calls.call(row("POST", "/v1/tenants/{tenant}/reconnect", &["acme"], None, &["tenant.reconnected"], NEITHER)).await;
    calls
        .call(row("POST", "/v1/tenants/{tenant}/revoke-tokens", &["acme"], None, &["tenant.tokens-revoked"], BOTH))
        .await;

    let config = "/v1/tenants/{tenant}/config/{key}";
    let entry = ["acme", "include_deleted_pets"];
    calls.call(row("PUT", config, &entry, Some(json!(false)), &["config.set"], BOTH)).await;
    calls.call(row("DELETE", config, &entry, None, &["config.unset"], BEFORE)).await;
    let issuer = json!({ "issuer": "https://id.acme.test", "jwks_url": "https://id.acme.test/keys", "audience": "pets",
                         "scopes": ["pets:read"] });
    let issuers = "/v1/tenants/{tenant}/issuers/{name}";
    calls.call(row("PUT", issuers, &["acme", "own"], Some(issuer), &["issuer.set"], AFTER)).await;
    calls.call(row("DELETE", issuers, &["acme", "own"], None, &["issuer.removed"], BEFORE)).await;
    let keys = "/v1/tenants/{tenant}/keys";
    let key = calls.call(row("POST", keys, &["acme"], Some(json!({})), &["key.created"], AFTER)).await.json();
    let key = key["id"].as_str().unwrap();
    calls.call(row("DELETE", "/v1/tenants/{tenant}/keys/{id}", &["acme", key], None, &["key.revoked"], BEFORE)).await;
    let host = Some(json!({ "host": "pets.acme.test" }));
    calls.call(row("POST", "/v1/tenants/{tenant}/domains", &["acme"], host, &["domain.added"], AFTER)).await;
    let domain = "/v1/tenants/{tenant}/domains/{host}";
    // Proven as it is: nothing is left to be done. What a proof tells is looked at where there are name servers.
    let prove = "/v1/tenants/{tenant}/domains/{host}/prove";
    calls.call(row("POST", prove, &["acme", "pets.acme.test"], None, &[], NEITHER)).await;
    calls.call(row("DELETE", domain, &["acme", "pets.acme.test"], None, &["domain.removed"], BEFORE)).await;

    let operator = Some(json!({ "name": "ada", "role": "viewer" }));
    let made = calls.call(row("POST", "/v1/operators", &[], operator, &["operator.created"], AFTER)).await.json();
    let (ada, token) = (made["id"].as_str().unwrap(), made["token"].as_str().unwrap().to_owned());
    calls.call(row("DELETE", "/v1/operators/{id}", &[ada], None, &["operator.revoked"], BEFORE)).await;
    calls.call(row("POST", "/v1/rewrap", &[], Some(json!({})), &["seal.rewrapped"], AFTER)).await;
    // Something for the doctor to put right.
    let registry = calls.bed.registry().await;
    registry.execute_unprepared("UPDATE tenants SET schema_version = 0").await.unwrap();
    registry.close().await.unwrap();
    // Servers come first, then tenants.
    let servers = calls.bed.done("POST", "/v1/doctor", Some(json!({}))).await;
    let fix = json!({ "fix": true, "cursor": servers["next_cursor"] });
    calls.call(row("POST", "/v1/doctor", &[], Some(fix), &["doctor.fix-ordered"], AFTER)).await;
    rollouts(&mut calls).await;
    let forgotten = row("DELETE", "/v1/nodes/{id}", &[&node], None, &["node.forgotten"], BEFORE);
    calls.call(forgotten).await;

    let admin_url = new_server(&calls.bed).await;
    let password = admin_url.split(['@', ':']).nth(2).unwrap_or("no password").to_owned();
    let engine = if store == Store::Sqlite { "sqlite" } else { "postgres" };
    let server = json!({ "name": "second", "engine": engine, "region": "here", "admin_url": admin_url, "capacity": 10,
                         "connection_budget": 10, "warm": 0 });
    calls.call(row("POST", "/v1/servers", &[], Some(server), &["server.created"], AFTER)).await;
    let change = Some(json!({ "state": "draining", "admin_url": admin_url }));
    calls.call(row("PATCH", "/v1/servers/{name}", &["second"], change, &["server.changed"], BOTH)).await;
    let rotate_admin = "/v1/servers/{name}/rotate-admin";
    if store == Store::Postgres {
        let told = &["server.admin-rotation-begun", "server.admin-rotated"];
        calls.call(row("POST", rotate_admin, &["second"], None, told, NEITHER)).await;
    } else {
        // A folder of files has no admin. What is refused is no deed.
        let refused = calls.bed.operator("POST", "/v1/servers/second/rotate-admin", None).await;
        assert_eq!(refused.kind(), "no-credentials");
        calls.made.insert(("POST".to_owned(), rotate_admin.to_owned()));
    }

    calls.call(row("DELETE", t, &["acme"], None, &["tenant.deletion-ordered"], BOTH)).await;
    calls.call(row("POST", "/v1/tenants/{tenant}/restore", &["acme"], None, &["tenant.restored"], BOTH)).await;
    let deletion = calls.bed.done("DELETE", "/v1/tenants/acme", None).await;
    let operation = deletion["operation"]["id"].as_str().unwrap();
    calls.call(row("POST", "/v1/epoch", &[], None, &["registry.epoch-begun"], BOTH)).await;
    let retry = "/v1/operations/{id}/retry";
    calls.call(row("POST", retry, &[operation], None, &["operation.retried"], AFTER)).await;

    assert_eq!(calls.made, changing(&description), "each call of the description has a row");
    // What only looks is no deed, and what is refused is none.
    let bed = &calls.bed;
    bed.tenant("globex").await;
    let count = bed.registry_number("SELECT count(*) FROM audit WHERE actor = 'tests'").await;
    bed.assert_healthy().await;
    bed.done("POST", "/v1/doctor", Some(json!({ "fix": true }))).await;
    assert_eq!(bed.operator("POST", "/v1/tenants", Some(json!({ "slug": "www", "name": "x" }))).await.status, 422);
    assert_eq!(bed.registry_number("SELECT count(*) FROM audit WHERE actor = 'tests'").await, count);
    // An answer that is told again was told when it took effect.
    let again = |key: &str| {
        let url = format!("{}/v1/tenants/globex/keys", bed.control[0].url);
        send(bed.client.post(url).bearer_auth(&bed.token).header("idempotency-key", key).json(&json!({})))
    };
    assert_eq!((again("k").await.status, again("k").await.status), (201, 201));
    assert_eq!(bed.registry_number("SELECT count(*) FROM audit WHERE actor = 'tests'").await, count + 1);
    // No secret is in any of it.
    let all = bed.done("GET", "/v1/audit?limit=200", None).await.to_string();
    assert!(all.contains(&id) && !all.contains(&token) && !all.contains(&password), "{all}");
    assert!(!all.contains(bed.token.splitn(3, '_').nth(2).unwrap()));
}

/// Fleet migrations: one that is given up while it rests, and one that fails and is retried.
async fn rollouts(calls: &mut Calls) {
    calls.bed.tenant("zoo").await;
    let registry = calls.bed.registry().await;
    let behind = "UPDATE tenants SET schema_version = 0";
    registry.execute_unprepared(behind).await.unwrap();
    let order = json!({ "settings": { "waves": [], "rest_seconds": 3600 } });
    calls.call(row("POST", "/v1/rollouts/plan", &[], Some(order.clone()), &[], NEITHER)).await;
    calls.call(row("POST", "/v1/rollouts/rehearse", &[], Some(order.clone()), &[], NEITHER)).await;
    calls.call(row("POST", "/v1/fleet/verify", &[], Some(json!({})), &[], NEITHER)).await;
    let ordered = &["rollout.ordered"];
    let rollout = calls.call(row("POST", "/v1/rollouts", &[], Some(order), ordered, AFTER)).await.json();
    let id = rollout["id"].as_str().unwrap();
    calls.call(row("POST", "/v1/rollouts/{id}/pause", &[id], None, &["rollout.paused"], BOTH)).await;
    calls.call(row("POST", "/v1/rollouts/{id}/resume", &[id], None, &["rollout.resumed"], BOTH)).await;
    calls.call(row("POST", "/v1/rollouts/{id}/abort", &[id], None, &["rollout.aborted"], BOTH)).await;
    calls.bed.until_rollout(id, |now| now["counts"]["running"] == 0).await;

    // There are no databases of these names.
    registry.execute_unprepared(behind).await.unwrap();
    registry
        .execute_unprepared("UPDATE databases SET name = 'fh_' || substr(name, 22) || substr(name, 4, 18)")
        .await
        .unwrap();
    let order = json!({ "settings": { "attempts": 1 } });
    let rollout = calls.bed.done("POST", "/v1/rollouts", Some(order)).await;
    let id = rollout["id"].as_str().unwrap();
    calls.bed.until_rollout(id, |now| now["state"] == "failed").await;
    calls.call(row("POST", "/v1/rollouts/{id}/retry", &[id], None, &["rollout.retried"], BOTH)).await;
    calls.bed.until_rollout(id, |now| now["state"] == "failed").await;
    calls.bed.done("POST", &format!("/v1/rollouts/{id}/abort"), None).await;
    // As it was: the second time it is turned the rest of the way.
    registry
        .execute_unprepared("UPDATE databases SET name = 'fh_' || substr(name, 10) || substr(name, 4, 6)")
        .await
        .unwrap();
    registry
        .execute_unprepared("UPDATE tenants SET schema_version = (SELECT schema_version FROM history)")
        .await
        .unwrap();
    registry.close().await.unwrap();
}

/// The admin URL of one more server: another folder, or another admin on the tests' Postgres.
async fn new_server(bed: &Bed) -> String {
    if bed.store == Store::Sqlite {
        let folder = bed.folder.path().join("second");
        std::fs::create_dir(&folder).unwrap();
        return format!("sqlite://{}", folder.display());
    }
    let superuser = bed.superuser_url();
    let name = format!("admin_{}", uuid::Uuid::new_v4().simple());
    let db = service::pool::open(&superuser).await.unwrap();
    let create = format!("CREATE ROLE {name} LOGIN CREATEDB CREATEROLE PASSWORD 'planted-password-of-the-second'");
    db.execute_unprepared(&create).await.unwrap();
    db.close().await.unwrap();
    let (_, rest) = superuser.split_once('@').unwrap();
    format!("postgres://{name}:planted-password-of-the-second@{rest}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    every_call_that_changes_something_is_told(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres() {
    every_call_that_changes_something_is_told(Store::Postgres).await;
}
