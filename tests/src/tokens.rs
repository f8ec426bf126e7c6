//! Signed tokens: a tenant's own issuer, the platform's, and what is no token of either.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::admission::seen;
use crate::bed::{Answer, Bed, Store, Tuning, send};
use crate::idp::{Idp, seconds_now};
use crate::on_both;

/// Seconds that an issuer's clock may be ahead (`tokens.leeway_seconds`).
const LEEWAY: u64 = 30;

async fn get(bed: &Bed, path: &str, token: &str) -> Answer {
    send(bed.request(0, "GET", path).bearer_auth(token)).await
}

/// Until a token is answered so.
async fn until(bed: &Bed, path: &str, token: &str, status: u16) -> Answer {
    let deadline = std::time::Instant::now() + crate::bed::PATIENCE;
    loop {
        let answer = get(bed, path, token).await;
        if answer.status == status {
            return answer;
        }
        assert!(std::time::Instant::now() < deadline, "still {answer:?} and not {status}");
    }
}

on_both!(a_tenants_own_issuer_speaks_for_that_tenant_alone, 1, 1);
async fn a_tenants_own_issuer_speaks_for_that_tenant_alone(bed: Bed) {
    let idp = Idp::start().await;
    let acme = bed.tenant("acme").await;
    bed.tenant("globex").await;
    assert_eq!(get(&bed, "/api/me", &idp.token(json!({}))).await.status, 401, "nobody trusts it yet");
    bed.done("PUT", "/v1/tenants/acme/issuers/okta", Some(idp.described())).await;
    for key in &idp.keys {
        let claims = idp.claims(json!({ "tenant": ["globex"], "tenants": "globex", "scope": "pets:read other" }));
        let me = until(&bed, "/acme/api/me", &key.sign(&claims), 200).await.json();
        assert_eq!(me["tenant"]["slug"], "acme", "{:?}: {me}", key.algorithm);
        assert_eq!(me["principal"]["subject"], format!("jwt:{}|ann", idp.issuer));
        assert_eq!(me["principal"]["scopes"], json!(["pets:read"]));
    }
    let ours = idp.token(json!({}));
    let outside = seen(&get(&bed, "/globex/api/me", &ours).await);
    assert_eq!(outside.0, 404);
    assert_eq!(outside, seen(&get(&bed, "/neverwas/api/me", &ours).await));
    assert_eq!(get(&bed, "/globex/api/me", &idp.token(json!({ "tenant": "globex" }))).await.status, 404);
    let pet = json!({ "name": "Rex", "species": "dog" });
    let made = send(bed.request(0, "POST", "/api/pets").bearer_auth(&ours).json(&pet)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let reading = idp.token(json!({ "scope": "pets:read" }));
    let refused = send(bed.request(0, "POST", "/api/pets").bearer_auth(&reading).json(&pet)).await;
    assert_eq!((refused.status, refused.kind().as_str()), (403, "scope-missing"));

    // What was issued until now is revoked, also by a clock that is ahead. What is issued from then on counts, once it is later
    // by more than clocks may be ahead.
    let ahead = idp.token(json!({ "iat": seconds_now() + LEEWAY - 5 }));
    assert_eq!(get(&bed, "/api/me", &ahead).await.status, 200);
    bed.done("POST", "/v1/tenants/acme/revoke-tokens", None).await;
    until(&bed, "/api/me", &ours, 401).await;
    assert_eq!(get(&bed, "/api/me", &ahead).await.status, 401);
    assert_eq!(get(&bed, "/api/me", &idp.token(json!({ "iat": null, "sub": "bob" }))).await.status, 401);
    assert_eq!(bed.get(0, &acme, "/api/me").await.status, 200, "keys stay");
    let later = idp.token(json!({ "iat": seconds_now() + LEEWAY + 1 }));
    until(&bed, "/api/me", &later, 200).await;
    // Described otherwise, or trusted no longer: its tokens go with it.
    let mut other = idp.described();
    other["audience"] = json!("cats");
    bed.done("PUT", "/v1/tenants/acme/issuers/okta", Some(other)).await;
    until(&bed, "/api/me", &later, 401).await;
    bed.done("PUT", "/v1/tenants/acme/issuers/okta", Some(idp.described())).await;
    until(&bed, "/api/me", &later, 200).await;
    bed.done("DELETE", "/v1/tenants/acme/issuers/okta", None).await;
    until(&bed, "/api/me", &later, 401).await;
}

on_both!(an_issuer_is_described_soundly_and_trusted_by_one_tenant, 1, 0);
async fn an_issuer_is_described_soundly_and_trusted_by_one_tenant(bed: Bed) {
    for slug in ["acme", "globex"] {
        bed.done("POST", "/v1/tenants", Some(json!({ "slug": slug, "name": slug, "plan": "test" }))).await;
    }
    let issuer = |changes: Value| {
        let mut issuer =
            json!({ "issuer": "https://a.test", "jwks_url": "https://a.test/keys", "audience": "pets", "scopes": [] });
        issuer.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        Some(issuer)
    };
    let put = async |tenant: &str, name: &str, changes: Value| {
        bed.operator("PUT", &format!("/v1/tenants/{tenant}/issuers/{name}"), issuer(changes)).await
    };
    for (changes, field) in [
        (json!({ "issuer": "" }), "issuer"),
        (json!({ "jwks_url": "keys" }), "jwks_url"),
        (json!({ "jwks_url": "ftp://a.test/keys" }), "jwks_url"),
        (json!({ "audience": "x".repeat(513) }), "audience"),
        (json!({ "scopes": ["pets:eat"] }), "scopes"),
        (json!({ "default_scopes": ["pets:read"] }), "default_scopes"),
        (json!({ "colour": "red" }), "colour"),
    ] {
        let answer = put("acme", "okta", changes.clone()).await;
        assert_eq!((answer.status, answer.json()["errors"][0]["field"].as_str()), (422, Some(field)), "{answer:?}");
    }
    assert_eq!(put("acme", "Not%20a%20name", json!({})).await.status, 422);
    assert_eq!(put("nobody", "okta", json!({})).await.status, 404);
    assert_eq!(put("acme", "okta", json!({})).await.status, 200);
    assert_eq!(put("acme", "okta", json!({ "audience": "dogs" })).await.json()["audience"], "dogs");
    for (tenant, name) in [("globex", "okta"), ("acme", "second")] {
        let taken = put(tenant, name, json!({})).await;
        assert_eq!((taken.status, taken.kind().as_str()), (409, "issuer-taken"));
    }
    for number in 2..=4 {
        assert_eq!(
            put("acme", &format!("n{number}"), json!({ "issuer": format!("https://{number}.test") })).await.status,
            200
        );
    }
    let fifth = put("acme", "n5", json!({ "issuer": "https://5.test" })).await;
    assert_eq!((fifth.status, fifth.kind().as_str()), (422, "too-many"));
    let list = bed.done("GET", "/v1/tenants/acme/issuers?limit=3", None).await;
    assert_eq!((list["items"].as_array().unwrap().len(), list["next_cursor"].is_string()), (3, true));
    assert_eq!(bed.done("GET", "/v1/tenants/acme/issuers/okta", None).await["audience"], "dogs");
    assert_eq!(bed.operator("DELETE", "/v1/tenants/acme/issuers/none", None).await.status, 404);
}

async fn with_platform_issuer(store: Store) -> (Bed, Idp) {
    let idp = Idp::start().await;
    let issuers = format!(
        "[[tokens.issuers]]\nissuer = \"{}\"\njwks_url = \"{}\"\naudience = \"pets\"\nscopes = [\"pets:read\"]\n",
        idp.issuer, idp.jwks_url
    );
    // For the length of the test's process.
    let tuning = Tuning { issuers: issuers.leak(), ..Tuning::DEFAULT };
    (Bed::start_with(store, 1, 1, tuning).await, idp)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_several_tenants_must_name_one() {
    let (bed, idp) = with_platform_issuer(Store::Sqlite).await;
    let acme = bed.tenant("acme").await;
    for slug in ["globex", "initech", "asleep"] {
        bed.tenant(slug).await;
    }
    bed.done("POST", "/v1/tenants/asleep/suspend", None).await;
    bed.done("POST", "/v1/tenants/globex/domains", Some(json!({ "host": "pets.globex.test" }))).await;
    let token = idp.token(json!({ "tenant": ["acme", "globex", "asleep", acme.id, "neverwas", "No Slug"] }));
    let by = |path: &str| bed.request(0, "GET", path).bearer_auth(&token);
    for (request, status, kind) in [
        (by("/api/me"), 400, "tenant-unnamed"),
        (by("/acme/api/me"), 200, ""),
        (by("/globex/api/me").header("x-tenant-id", "globex"), 200, ""),
        (by("/api/me").header("x-tenant-id", &acme.id), 200, ""),
        (by("/acme/api/me").header("x-tenant-id", "globex"), 400, "ambiguous-tenant"),
        (by("/acme/api/me").header("x-tenant-id", "initech"), 400, "ambiguous-tenant"),
        (by("/asleep/api/me"), 403, "tenant-suspended"),
        (by("/initech/api/me"), 404, "tenant-not-found"),
        (by("/neverwas/api/me"), 404, "tenant-not-found"),
    ] {
        let answer = send(request).await;
        assert_eq!((answer.status, answer.kind().as_str()), (status, kind), "{answer:?}");
    }
    let foreign = seen(&send(by("/initech/api/me")).await);
    assert_eq!(foreign, seen(&send(by("/nobody/api/me")).await));

    let only = idp.token(json!({ "tenant": "initech" }));
    assert_eq!(get(&bed, "/api/me", &only).await.json()["tenant"]["slug"], "initech");
    for nowhere in [json!({}), json!({ "tenant": [] }), json!({ "tenant": "neverwas" })] {
        let token = idp.token(nowhere);
        assert_eq!(get(&bed, "/api/me", &token).await.status, 404);
        assert_eq!(get(&bed, "/acme/api/me", &token).await.status, 404);
    }
    // Revoked for one of its tenants, it stays good for the others.
    bed.done("POST", "/v1/tenants/acme/revoke-tokens", None).await;
    until(&bed, "/acme/api/me", &token, 404).await;
    assert_eq!(get(&bed, "/globex/api/me", &token).await.status, 200);
    // A slug that its tenant left speaks for nobody.
    bed.done("PATCH", "/v1/tenants/initech", Some(json!({ "slug": "moved" }))).await;
    until(&bed, "/api/me", &only, 404).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_names_a_slug_speaks_for_no_tenant_that_took_it_later() {
    let (bed, idp) = with_platform_issuer(Store::Sqlite).await;
    let acme = bed.tenant("acme").await;
    let issued = |tenant: &str, ago: u64| idp.token(json!({ "tenant": tenant, "iat": seconds_now() - ago }));
    // Another tenant had the slug then.
    assert_eq!(get(&bed, "/api/me", &issued("acme", 60)).await.status, 401);
    assert_eq!(get(&bed, "/acme/api/me", &idp.token(json!({ "tenant": "acme", "iat": null }))).await.status, 401);
    assert_eq!(get(&bed, "/api/me", &issued(&acme.id, 60)).await.status, 200);
    let named = issued("acme", 0);
    assert_eq!(get(&bed, "/api/me", &named).await.status, 200);
    bed.done("PATCH", "/v1/tenants/acme", Some(json!({ "slug": "moved" }))).await;
    until(&bed, "/api/me", &named, 404).await;
    until(&bed, "/api/me", &issued("moved", 0), 200).await;
    assert_eq!(get(&bed, "/api/me", &issued("moved", 60)).await.status, 401);
    assert_eq!(get(&bed, "/api/me", &issued(&acme.id, 60)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_token_of_a_trusted_issuer_gets_the_same_401() {
    let (bed, idp) = with_platform_issuer(Store::Sqlite).await;
    bed.tenant("acme").await;
    let good = idp.claims(json!({ "tenant": "acme" }));
    for key in &idp.keys {
        assert_eq!(get(&bed, "/api/me", &key.sign(&good)).await.status, 200, "{:?}", key.algorithm);
    }
    let (rsa, other) = (&idp.keys[0], Idp::start().await);
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let with_header = |header: Value, signature: &str| format!("{}.{}.{signature}", part(&header), part(&good));
    let signature = rsa.sign(&good).rsplit_once('.').unwrap().1.to_owned();
    // The public key as the secret of an HMAC: what is public would sign.
    let public = serde_json::to_value(&rsa.shown).unwrap()["n"].as_str().unwrap().to_owned();
    let confused = [public.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(&public).unwrap()].map(|secret| {
        let header = Header { kid: rsa.shown.common.key_id.clone(), ..Header::new(Algorithm::HS256) };
        encode(&header, &good, &EncodingKey::from_secret(&secret)).unwrap()
    });
    let now = seconds_now();
    let changed = |changes: Value| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        rsa.sign(&claims)
    };
    let whole = rsa.sign(&good);
    let with_key = |kid: &str| {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::RS256) };
        encode(&header, &good, &rsa.signing).unwrap()
    };
    let mut bad: Vec<(&str, String)> = vec![
        ("truncated in its signature", whole[..whole.len() - 10].to_owned()),
        ("truncated to two parts", whole.rsplit_once('.').unwrap().0.to_owned()),
        ("unsigned", format!("{}.", whole.rsplit_once('.').unwrap().0)),
        ("of no algorithm", with_header(json!({ "alg": "none" }), "")),
        ("of no algorithm, signed", with_header(json!({ "alg": "none" }), &signature)),
        (
            "of an algorithm that is not its key's",
            with_header(json!({ "alg": "ES256", "kid": "key-RS256" }), &signature),
        ),
        ("expired", changed(json!({ "exp": now - 60 }))),
        ("of the future", changed(json!({ "nbf": now + 600 }))),
        ("issued in the future", changed(json!({ "iat": now + 600 }))),
        ("for another audience", changed(json!({ "aud": "cats" }))),
        ("for no audience", changed(json!({ "aud": null }))),
        ("of an unknown issuer", other.token(json!({ "tenant": "acme" }))),
        ("in the name of the issuer", other.token(json!({ "iss": idp.issuer, "tenant": "acme" }))),
        ("without an expiry", changed(json!({ "exp": null }))),
        ("without a subject", changed(json!({ "sub": null }))),
        ("of too many tenants", changed(json!({ "tenant": vec!["acme"; 65] }))),
        ("with a key id that is a path", with_key("../../../../etc/passwd")),
        ("with a key id that is a URL", with_key(&other.jwks_url)),
        ("with a long key id", with_key(&"k".repeat(300))),
        (
            "with something critical",
            with_header(json!({ "alg": "RS256", "kid": "key-RS256", "crit": ["b64"] }), &signature),
        ),
        ("longer than any", format!("{whole}{}", "A".repeat(9_000))),
        ("in padding", format!("{whole}==")),
        ("no token", "a.b.c".to_owned()),
    ];
    bad.extend(confused.map(|token| ("an HMAC by the public key", token)));
    let expected = seen(&get(&bed, "/acme/api/me", "fh_aaaaaaaaaaaaaaaaaaaa_none").await);
    assert_eq!(expected.0, 401);
    for (what, token) in &bad {
        for path in ["/acme/api/me", "/neverwas/api/me", "/api/me"] {
            let answer = get(&bed, path, token).await;
            assert_eq!(seen(&answer), expected, "{what}: {answer:?}");
        }
    }
}
