//! Who may call the control plane: every call by its least role, and tokens through their life.

use serde_json::{Value, json};

use crate::bed::{BOOTSTRAP, Bed, NODE, send};
use crate::on_both;

/// The calls that the API's description names, each with the role that it says to need; none for those of data planes.
fn calls(description: &Value) -> Vec<(String, String, Option<String>)> {
    let mut calls = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, call) in item.as_object().unwrap() {
            if !["get", "put", "post", "delete", "patch"].contains(&method.as_str()) {
                continue;
            }
            let security = call["security"].as_array().unwrap_or_else(|| panic!("{method} {path} names no security"));
            let role = security.iter().find_map(|one| one["operator"][0].as_str());
            assert!(role.is_some() || security.iter().any(|one| one.get("node").is_some()), "{method} {path}");
            // Values that lead nowhere: whoever is let in finds nothing.
            let concrete: Vec<&str> =
                path.split('/').map(|part| if part.starts_with('{') { "nobody" } else { part }).collect();
            calls.push((method.to_uppercase(), concrete.join("/"), role.map(str::to_owned)));
        }
    }
    calls
}

on_both!(every_call_refuses_no_token_a_bad_one_and_too_low_a_role, 1, 0);
async fn every_call_refuses_no_token_a_bad_one_and_too_low_a_role(bed: Bed) {
    let url = &bed.control[0].url;
    let description = send(bed.client.get(format!("{url}/openapi.json"))).await.json();
    let calls = calls(&description);
    assert!(calls.len() > 30, "{}", calls.len());
    let roles = ["viewer", "operator", "admin"];
    let mut tokens = Vec::new();
    for role in roles {
        tokens.push(bed.new_operator(role, role).await);
    }
    let mut forged = tokens[2].clone();
    forged.replace_range(forged.len() - 1.., if forged.ends_with('A') { "B" } else { "A" });
    let unknown = format!("fo_{}_{}", "a".repeat(20), "A".repeat(43));

    for (method, path, role) in &calls {
        let call = || bed.client.request(method.parse().unwrap(), format!("{url}{path}"));
        for bad in [&forged, &unknown, "", "fo_", BOOTSTRAP.trim_end_matches('s'), &tokens[0].replace("fo_", "fh_")] {
            let answer = send(call().bearer_auth(bad)).await;
            assert_eq!((answer.status, answer.kind().as_str()), (401, "unauthorized"), "{method} {path}: {answer:?}");
        }
        assert_eq!(send(call()).await.status, 401, "{method} {path} without a token");
        let bootstrap = send(call().bearer_auth(BOOTSTRAP)).await;
        assert_eq!((bootstrap.status, bootstrap.kind().as_str()), (403, "forbidden"), "{method} {path}");
        for (at, token) in tokens.iter().enumerate() {
            let may = role.as_ref().is_some_and(|role| roles.iter().position(|it| it == role).unwrap() <= at);
            // A body that no call takes: nothing is changed by those who may.
            let answer = send(call().bearer_auth(token).header("content-type", "application/json").body("[")).await;
            let is_refused = answer.kind() == "forbidden";
            assert_eq!(is_refused, !may, "{method} {path} by a {}: {answer:?}", roles[at]);
            assert_eq!(is_refused, answer.status == 403, "{method} {path}: {answer:?}");
        }
        if role.is_some() && !path.starts_with("/v1/nodes/") {
            let node = send(call().bearer_auth(NODE)).await;
            assert_eq!((node.status, node.kind().as_str()), (403, "forbidden"), "{method} {path} by a node");
        }
    }
}

on_both!(the_bootstrap_token_makes_the_first_admin_and_nothing_else, 1, 0);
async fn the_bootstrap_token_makes_the_first_admin_and_nothing_else(bed: Bed) {
    let url = format!("{}/v1/operators", bed.control[0].url);
    let make = |token: &str, body: Value| send(bed.client.post(&url).bearer_auth(token).json(&body));
    let admin = json!({ "name": "second", "role": "admin" });
    assert_eq!(make(BOOTSTRAP, admin.clone()).await.status, 403, "there is an admin");
    assert_eq!(make(&bed.token, json!({ "name": "tests", "role": "viewer" })).await.kind(), "operator-taken");
    assert_eq!(make(&bed.token, json!({ "name": "x", "role": "king" })).await.status, 422);

    let listed = bed.done("GET", "/v1/operators", None).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&listed["items"][0]["name"], &listed["items"][0]["created_by"]),
        (&json!("tests"), &json!("bootstrap"))
    );
    let id = listed["items"][0]["id"].as_str().unwrap();
    let registry = bed.registry().await;
    let digest: String = {
        use sea_orm::{ConnectionTrait as _, Statement};
        let sql = Statement::from_string(registry.get_database_backend(), "SELECT digest FROM operators");
        registry.query_one_raw(sql).await.unwrap().unwrap().try_get_by_index(0).unwrap()
    };
    assert!(!bed.token.contains(&digest), "only a digest is kept");

    // Revoked, it counts no more, and with the last admin gone the bootstrap token makes the next: an admin, and nothing else.
    assert_eq!(bed.operator("DELETE", &format!("/v1/operators/{id}"), None).await.status, 204);
    assert_eq!(bed.operator("GET", "/v1/tenants", None).await.status, 401);
    let tenants = bed.client.get(format!("{}/v1/tenants", bed.control[0].url)).bearer_auth(BOOTSTRAP);
    assert_eq!(send(tenants).await.status, 403);
    assert_eq!(make(BOOTSTRAP, json!({ "name": "v", "role": "viewer" })).await.status, 422);
    // Of many at once, one is the first.
    let all = futures_util::future::join_all(
        (0..8).map(|at| make(BOOTSTRAP, json!({ "name": at.to_string(), "role": "admin" }))),
    )
    .await;
    let firsts = all.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(firsts, 1, "{all:?}");
    assert!(all.iter().all(|answer| [201, 403].contains(&answer.status)), "{all:?}");
}
