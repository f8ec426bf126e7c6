//! The control plane's API as its operators meet it: bad input, repeats, pages, preconditions.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::bed::{Bed, send};
use crate::on_both;

on_both!(bad_input_is_a_clear_problem_and_changes_nothing, 1, 0);
async fn bad_input_is_a_clear_problem_and_changes_nothing(bed: Bed) {
    bed.tenant("acme").await;
    let tenant = |extra: serde_json::Value| {
        let mut body = json!({ "slug": "globex", "name": "Globex" });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Some(body)
    };
    let long = "x".repeat(5_000);
    for (method, path, body, status, kind) in [
        ("POST", "/v1/tenants", tenant(json!({ "slug": "Bad" })), 422, "slug-invalid"),
        ("POST", "/v1/tenants", tenant(json!({ "slug": "'; DROP TABLE tenants; --" })), 422, "slug-invalid"),
        ("POST", "/v1/tenants", tenant(json!({ "slug": "www" })), 422, "slug-reserved"),
        ("POST", "/v1/tenants", tenant(json!({ "slug": "acme" })), 409, "slug-taken"),
        ("POST", "/v1/tenants", tenant(json!({ "plan": "gold" })), 422, "unknown-plan"),
        ("POST", "/v1/tenants", tenant(json!({ "region": "mars" })), 422, "unknown-region"),
        ("POST", "/v1/tenants", tenant(json!({ "colour": "red" })), 422, "invalid-body"),
        ("POST", "/v1/tenants", tenant(json!({ "name": 7 })), 422, "invalid-body"),
        ("POST", "/v1/tenants", tenant(json!({ "name": "" })), 422, "invalid-body"),
        ("POST", "/v1/tenants", tenant(json!({ "config": { "x": 1 } })), 422, "unknown-config-key"),
        (
            "POST",
            "/v1/tenants",
            tenant(json!({ "config": { "include_deleted_pets": 1 } })),
            422,
            "invalid-config-value",
        ),
        ("PUT", "/v1/tenants/acme/config/include_deleted_pets", Some(json!(long)), 422, "invalid-config-value"),
        (
            "POST",
            "/v1/servers",
            Some(
                json!({ "name": "s", "engine": "oracle", "region": "here", "admin_url": "x", "capacity": 1, "connection_budget": 1 }),
            ),
            422,
            "invalid-body",
        ),
        (
            "POST",
            "/v1/servers",
            Some(
                json!({ "name": "s", "engine": "sqlite", "region": "here", "admin_url": "sqlite:///nowhere/at/all", "capacity": 1, "connection_budget": 1 }),
            ),
            422,
            "server-unusable",
        ),
        (
            "POST",
            "/v1/servers",
            Some(
                json!({ "name": "s", "engine": "postgres", "region": "here", "admin_url": "postgres://a:planted@127.0.0.1:1/x", "capacity": 1, "connection_budget": 1 }),
            ),
            422,
            "server-unusable",
        ),
        ("POST", "/v1/tenants", Some(json!(["globex", "Globex", null, null, null, {}])), 422, "invalid-body"),
        ("PATCH", "/v1/tenants/acme", Some(json!([null, "Other", null, null])), 422, "invalid-body"),
        ("PATCH", "/v1/tenants/acme", Some(json!({ "plan": null })), 422, "invalid-body"),
        ("POST", "/v1/tenants/acme/keys", Some(json!({ "scopes": ["pets:read", "pets:read"] })), 422, "invalid-body"),
        ("GET", "/v1/tenants?plan=gold", None, 400, "invalid-query"),
        ("GET", "/v1/tenants?region=mars", None, 400, "invalid-query"),
        ("GET", "/v1/tenants?server=mars", None, 400, "invalid-query"),
        ("GET", "/v1/operations?state=odd", None, 400, "invalid-query"),
        ("GET", "/v1/audit?chain=odd", None, 400, "invalid-query"),
        ("GET", "/v1/audit?since=yesterday", None, 400, "invalid-query"),
        ("GET", "/v1/audit?order=odd", None, 400, "invalid-query"),
        ("GET", "/v1/audit?order=chain&cursor=YQBi", None, 400, "invalid-query"),
        ("GET", "/v1/audit?tenant=nobody", None, 404, "tenant-not-found"),
        ("GET", "/v1/audit?limit=201", None, 400, "invalid-query"),
        ("GET", "/v1/audit/checkpoints?chain=odd", None, 400, "invalid-query"),
        ("GET", "/v1/tenants?cursor=!", None, 400, "invalid-query"),
        ("GET", "/v1/tenants?limit=0", None, 400, "invalid-query"),
        ("GET", "/v1/tenants?limit=x", None, 400, "invalid-query"),
        ("GET", "/v1/tenants?colour=red", None, 400, "invalid-query"),
        ("GET", "/v1/tenants?status=odd", None, 400, "invalid-query"),
        // A NUL, which Postgres stores in no text. `YQBi` is the cursor a\0b.
        ("POST", "/v1/tenants", tenant(json!({ "plan": "a\u{0}" })), 422, "invalid-body"),
        ("POST", "/v1/tenants", tenant(json!({ "region": "a\u{0}" })), 422, "invalid-body"),
        ("POST", "/v1/tenants", tenant(json!({ "name": "a\u{0}" })), 422, "invalid-body"),
        ("POST", "/v1/tenants", tenant(json!({ "admin_email": "a\u{0}@b.c" })), 422, "invalid-body"),
        ("POST", "/v1/tenants/acme/keys", Some(json!({ "name": "a\u{0}" })), 422, "invalid-body"),
        ("POST", "/v1/tenants/acme/domains", Some(json!({ "host": "a\u{0}.test" })), 422, "invalid-body"),
        ("GET", "/v1/tenants?q=%00", None, 400, "invalid-query"),
        ("GET", "/v1/tenants?plan=%00", None, 400, "invalid-query"),
        ("GET", "/v1/tenants?region=%00", None, 400, "invalid-query"),
        ("GET", "/v1/tenants/acme/domains?cursor=YQBi", None, 400, "invalid-query"),
        ("GET", "/v1/plans?cursor=YQBi", None, 400, "invalid-query"),
        ("GET", "/v1/servers?cursor=YQBi", None, 400, "invalid-query"),
        ("GET", "/v1/tenants/%00", None, 404, "not-found"),
        ("GET", "/v1/tenants/acme/config/%00", None, 404, "not-found"),
        ("DELETE", "/v1/tenants/acme/keys/%00", None, 404, "not-found"),
        ("DELETE", "/v1/tenants/acme/domains/%00", None, 404, "not-found"),
        ("GET", "/v1/servers/%00", None, 404, "not-found"),
        ("GET", "/v1/plans/%00", None, 404, "not-found"),
        ("PUT", "/v1/plans/%00", Some(json!({ "connections": 2, "concurrency": 2 })), 404, "not-found"),
        ("GET", "/v1/tenants/nobody", None, 404, "tenant-not-found"),
        ("GET", "/v1/operations/01a20d1d-46bf-7645-9071-ab07ec72e333", None, 404, "operation-not-found"),
        ("GET", "/v1/nowhere", None, 404, "not-found"),
        ("POST", "/v1/tenants/acme/resume", None, 409, "illegal-transition"),
        ("POST", "/v1/tenants/acme/restore", None, 409, "illegal-transition"),
        ("PUT", "/v1/tenants", Some(json!({})), 405, "method-not-allowed"),
        ("POST", "/v1/feed", Some(json!({})), 403, "forbidden"),
    ] {
        let answer = bed.operator(method, path, body).await;
        assert_eq!((answer.status, answer.kind().as_str()), (status, kind), "{method} {path}: {answer:?}");
        assert_eq!(answer.header("content-type"), "application/problem+json");
        assert!(!answer.text.contains("planted"), "{answer:?}");
        assert_eq!(answer.json()["request_id"], answer.header("x-request-id").as_str());
    }
    let url = format!("{}/v1/tenants", bed.control[0].url);
    let post = || bed.client.post(&url).bearer_auth(&bed.token);
    let json = || post().header("content-type", "application/json");
    for (request, status, kind) in [
        (json().body("{"), 400, "malformed-json"),
        (post().header("content-type", "text/plain").body("{}"), 415, "unsupported-media-type"),
        (bed.client.get(&url), 401, "unauthorized"),
        (bed.client.get(&url).bearer_auth("wrong"), 401, "unauthorized"),
        (bed.client.delete(&url).bearer_auth(&bed.token), 405, "method-not-allowed"),
    ] {
        let answer = send(request).await;
        assert_eq!((answer.status, answer.kind().as_str()), (status, kind), "{answer:?}");
        assert!(status != 405 || answer.header("allow").contains("POST"), "{answer:?}");
    }
    // By hand: the server answers before the body has come, and a client that goes on sending may miss it.
    let address = bed.control[0].url.trim_start_matches("http://");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/tenants HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 1048577\r\nconnection: close\r\n\r\n",
        bed.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body-too-large"), "{answer}");
    let tenants = bed.done("GET", "/v1/tenants", None).await;
    assert_eq!(tenants["items"].as_array().unwrap().len(), 1, "{tenants}");
}

on_both!(a_repeated_request_takes_effect_once, 1, 0);
async fn a_repeated_request_takes_effect_once(bed: Bed) {
    let url = format!("{}/v1/tenants", bed.control[0].url);
    let create = |key: &str, slug: &str| {
        let body = json!({ "slug": slug, "name": "Acme" });
        bed.client.post(&url).bearer_auth(&bed.token).header("idempotency-key", key).json(&body)
    };
    let twins = futures_util::future::join_all((0..8).map(|_| send(create("one", "acme")))).await;
    for twin in &twins {
        let is_told = twin.status == 202 || (twin.status == 409 && twin.kind() == "request-in-progress");
        assert!(is_told, "{twin:?}");
    }
    let first = twins.iter().find(|twin| twin.status == 202).unwrap();
    let again = send(create("one", "acme")).await;
    assert_eq!((again.status, &again.text, again.header("location")), (202, &first.text, first.header("location")));
    let other = send(create("one", "globex")).await;
    assert_eq!((other.status, other.kind().as_str()), (422, "idempotency-key-reused"));
    // A request that failed gives its key back.
    assert_eq!(send(create("two", "www")).await.kind(), "slug-reserved");
    let deadline = std::time::Instant::now() + crate::bed::PATIENCE;
    while send(create("two", "initech")).await.status != 202 {
        assert!(std::time::Instant::now() < deadline, "the key was not given back");
    }
    assert_eq!(bed.done("GET", "/v1/tenants", None).await["items"].as_array().unwrap().len(), 2);
    // A key's secret is told again to whoever repeats the very request, and is nowhere in clear.
    let keys = format!("{}/v1/tenants/acme/keys", bed.control[0].url);
    let make = || bed.client.post(&keys).bearer_auth(&bed.token).header("idempotency-key", "three").json(&json!({}));
    let (first, again) = (send(make()).await, send(make()).await);
    assert_eq!((first.status, &first.text), (201, &again.text));
    assert_eq!(bed.done("GET", "/v1/tenants/acme/keys", None).await["items"].as_array().unwrap().len(), 1);
}

on_both!(pages_filters_and_preconditions_hold, 1, 0);
async fn pages_filters_and_preconditions_hold(bed: Bed) {
    for number in 0..5 {
        bed.tenant(&format!("tenant-{number}")).await;
    }
    let all = bed.all("/v1/tenants", 2).await;
    let slugs: Vec<&str> = all.iter().map(|it| it["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs, (0..5).map(|number| format!("tenant-{number}")).collect::<Vec<_>>());
    for (filter, count) in [("status=active", 5), ("plan=free", 0), ("server=local", 5), ("q=NANT-3", 1), ("q=%25", 0)]
    {
        let page = bed.done("GET", &format!("/v1/tenants?{filter}"), None).await;
        assert_eq!(page["items"].as_array().unwrap().len(), count, "{filter}");
    }
    let shown = bed.operator("GET", "/v1/tenants/tenant-0", None).await;
    let etag = shown.header("etag");
    let url = format!("{}/v1/tenants/tenant-0", bed.control[0].url);
    let patch = |etag: &str, name: &str| {
        bed.client.patch(&url).bearer_auth(&bed.token).header("if-match", etag).json(&json!({ "name": name }))
    };
    let changed = send(patch(&etag, "Renamed")).await;
    assert_eq!((changed.status, changed.json()["name"].as_str()), (200, Some("Renamed")));
    let stale = send(patch(&etag, "Again")).await;
    assert_eq!((stale.status, stale.kind().as_str()), (412, "stale"));
    assert_eq!(bed.done("GET", "/v1/tenants/tenant-0", None).await["name"], "Renamed");
    // Every path of the description is there, and it is OpenAPI 3.1.
    let description = send(bed.client.get(format!("{}/openapi.json", bed.control[0].url))).await.json();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"));
    for path in ["/v1/tenants", "/v1/tenants/{tenant}/keys", "/v1/operations/{id}/retry", "/v1/feed"] {
        assert!(description["paths"].get(path).is_some(), "{path}");
    }
    let refusals = &description["paths"]["/v1/tenants"]["post"]["responses"];
    for status in ["409", "422", "default"] {
        assert!(refusals[status]["content"].get("application/problem+json").is_some(), "{status}: {refusals}");
    }
    assert_eq!(send(bed.client.get(format!("{}/docs/", bed.control[0].url))).await.status, 200);
    // A slug may read as an id.
    let odd = "abcdef0123456789abcdef0123456789";
    assert_eq!(bed.tenant(odd).await.slug, odd);
    assert_eq!(bed.done("GET", &format!("/v1/tenants/{odd}"), None).await["slug"], odd);
}
