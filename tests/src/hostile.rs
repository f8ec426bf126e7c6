//! Hostile slugs and names by every way that leads to SQL: refused where they must be a label, kept as they are where they are
//! a text, and never more than that.

use serde_json::{Value, json};

use crate::bed::{Bed, send};
use crate::on_both;

const HOSTILE: [&str; 9] = [
    "'; DROP TABLE tenants; --",
    "\"; DROP DATABASE postgres; --",
    "acme' OR '1'='1",
    "\\'; SELECT pg_sleep(60); --",
    "$$; DROP ROLE freehold_owner; $$",
    "$1, ?1, %s, {0}, {slug}",
    "acme\" WITH SUPERUSER; --",
    "%_%' ESCAPE '!",
    "/* */ UNION SELECT sealed_url FROM databases",
];

/// Every byte but the plain ones, as a path or a query carries it.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

on_both!(hostile_slugs_and_names_are_texts_or_refused_wherever_they_come, 1, 1);
async fn hostile_slugs_and_names_are_texts_or_refused_wherever_they_come(bed: Bed) {
    let acme = bed.tenant("acme").await;
    bed.until(&acme, "/api/pets", 200).await;
    let call = async |method: &str, path: &str, body: Option<Value>| {
        let answer = bed.operator(method, path, body).await;
        assert!(answer.status < 500, "{method} {path}: {answer:?}");
        answer
    };
    let mut tenants = 1;
    for (number, text) in HOSTILE.iter().enumerate() {
        let in_path = escaped(text);
        // A label is refused.
        for (method, path, body) in [
            ("POST", "/v1/tenants", json!({ "slug": text, "name": "x" })),
            ("PATCH", "/v1/tenants/acme", json!({ "slug": text })),
            ("POST", "/v1/tenants", json!({ "slug": "other", "name": "x", "plan": text })),
            ("POST", "/v1/tenants", json!({ "slug": "other", "name": "x", "region": text })),
            ("POST", "/v1/tenants", json!({ "slug": "other", "name": "x", "admin_email": text })),
            ("POST", "/v1/tenants", json!({ "slug": "other", "name": "x", "config": { *text: 1 } })),
            ("POST", "/v1/tenants/acme/domains", json!({ "host": text })),
            ("POST", "/v1/tenants/acme/keys", json!({ "name": "x", "scopes": [text] })),
            (
                "POST",
                "/v1/servers",
                json!({ "name": text, "engine": "sqlite", "region": "here", "admin_url": "sqlite:///tmp", "capacity": 1,
                        "connection_budget": 1 }),
            ),
            (
                "POST",
                "/v1/servers",
                json!({ "name": "x", "engine": "sqlite", "region": text, "admin_url": "sqlite:///tmp", "capacity": 1,
                        "connection_budget": 1 }),
            ),
        ] {
            let answer = call(method, path, Some(body.clone())).await;
            assert_eq!(answer.status, 422, "{method} {path} {body}: {answer:?}");
        }
        for path in ["/v1/tenants/X", "/v1/tenants/X/keys", "/v1/tenants/X/config", "/v1/servers/X", "/v1/plans/X"] {
            assert_eq!(call("GET", &path.replace('X', &in_path), None).await.status, 404, "{path} {text}");
        }
        for path in ["/v1/tenants/X", "/v1/tenants/acme/domains/X", "/v1/tenants/acme/keys/X"] {
            assert_eq!(call("DELETE", &path.replace('X', &in_path), None).await.status, 404, "{path} {text}");
        }
        for query in ["status", "plan", "region", "server", "cursor"] {
            let answer = call("GET", &format!("/v1/tenants?{query}={in_path}"), None).await;
            assert_eq!(answer.status, 400, "{query} {text}");
        }
        let found = bed.done("GET", &format!("/v1/tenants?q={in_path}"), None).await;
        assert_eq!(found["items"], json!([]), "{text}");
        // A text is kept as it is, by the tenant's whole life.
        let slug = format!("named-{number}");
        let body = json!({ "slug": slug, "name": text, "plan": "test", "admin_email": "o'hara+\"x\"@example.org" });
        let refused_or_made = call("POST", "/v1/tenants", Some(body)).await;
        if refused_or_made.status == 422 {
            // The address, not the name.
            assert_eq!(refused_or_made.json()["errors"][0]["field"], "admin_email", "{refused_or_made:?}");
            let made = call("POST", "/v1/tenants", Some(json!({ "slug": slug, "name": text, "plan": "test" }))).await;
            assert_eq!(made.status, 201, "{made:?}");
        }
        tenants += 1;
        assert_eq!(bed.done("GET", &format!("/v1/tenants/{slug}"), None).await["name"], *text);
        let found = bed.done("GET", &format!("/v1/tenants?q={in_path}"), None).await;
        assert_eq!(found["items"][0]["slug"], slug.as_str(), "{text}: {found}");
        let named = bed.done("PATCH", "/v1/tenants/acme", Some(json!({ "name": text }))).await;
        assert_eq!(named["name"], *text);
        let key = bed.done("POST", &format!("/v1/tenants/{slug}/keys"), Some(json!({ "name": text }))).await;
        assert_eq!(key["name"], *text);
        let rotated = call("POST", &format!("/v1/tenants/{slug}/rotate-credentials"), None).await;
        assert_eq!(rotated.status, 200, "{rotated:?}");
        // Data planes hear of slugs by path, header and host.
        for request in [
            bed.request(0, "GET", &format!("/{in_path}/api/pets")),
            bed.request(0, "GET", "/api/pets").header("x-tenant-id", *text),
            bed.request(0, "GET", "/api/pets").bearer_auth(&acme.key).header("x-tenant-id", *text),
            bed.request(0, "GET", "/api/pets").bearer_auth(text),
            bed.request(0, "GET", &format!("/api/pets/{in_path}")).bearer_auth(&acme.key),
            bed.request(0, "GET", &format!("/api/pets?cursor={in_path}")).bearer_auth(&acme.key),
        ] {
            let answer = send(request).await;
            assert!((400..500).contains(&answer.status), "{text}: {answer:?}");
        }
        let pet = bed.request(0, "POST", "/api/pets").bearer_auth(&acme.key);
        let pet = send(pet.json(&json!({ "name": text, "species": "cat" }))).await;
        assert_eq!((pet.status, pet.json()["name"].as_str()), (201, Some(*text)), "{pet:?}");
    }
    assert_eq!(bed.registry_number("SELECT count(*) FROM tenants").await, tenants);
    assert_eq!(
        bed.registry_number("SELECT count(*) FROM databases WHERE name LIKE 'fh\\_%' ESCAPE '\\'").await,
        tenants
    );
    for number in 0..HOSTILE.len() {
        let deleted = call("DELETE", &format!("/v1/tenants/named-{number}"), None).await;
        assert_eq!(deleted.status, 202, "{deleted:?}");
        bed.until_ended(deleted.json()["operation"]["id"].as_str().unwrap()).await;
    }
    assert_eq!(bed.registry_number("SELECT count(*) FROM databases").await, 1);
    assert_eq!(bed.get(0, &acme, "/api/pets").await.status, 200);
    bed.assert_healthy().await;
}
