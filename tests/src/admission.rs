//! Who is let in, by which name, and what an outsider learns: nothing.

use std::net::IpAddr;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::{StreamExt as _, stream};
use reqwest::{Client, RequestBuilder};
use serde_json::json;

use crate::bed::{Answer, Bed, Store, send};
use crate::on_both;

on_both!(five_ways_name_a_tenant_and_two_tenants_are_refused, 1, 1);
async fn five_ways_name_a_tenant_and_two_tenants_are_refused(bed: Bed) {
    let acme = bed.tenant("acme").await;
    bed.tenant("globex").await;
    bed.done("POST", "/v1/tenants/acme/domains", Some(json!({ "host": "Pets.Acme.Test" }))).await;
    let me = |path: &str| bed.request(0, "GET", path).bearer_auth(&acme.key);
    let ways: Vec<(&str, RequestBuilder)> = vec![
        ("host", me("/api/me").header("host", "ACME.pets.test.:8800")),
        ("custom domain", me("/api/me").header("host", "pets.acme.test:1")),
        ("path", me("/acme/api/me")),
        ("header", me("/api/me").header("x-tenant-id", "acme")),
        ("header with the id", me("/api/me").header("x-tenant-id", &acme.id)),
        ("credential", me("/api/me")),
        ("all at once", me("/acme/api/me").header("host", "acme.pets.test").header("x-tenant-id", "acme")),
    ];
    // The domain is news that the node must have heard.
    let host = me("/api/me").header("host", "pets.acme.test");
    let mut heard = send(host.try_clone().unwrap()).await;
    while heard.status == 404 {
        heard = send(host.try_clone().unwrap()).await;
    }
    for (way, request) in ways {
        let answer = send(request).await;
        assert_eq!((answer.status, answer.json()["tenant"]["slug"].as_str()), (200, Some("acme")), "{way}: {answer:?}");
    }
    for (request, status) in [
        (me("/globex/api/me"), 404),
        (me("/nobody/api/me"), 404),
        (me("/acme/api/me").header("x-tenant-id", "globex"), 400),
        (me("/acme/api/me").header("x-tenant-id", "nobody"), 400),
        (me("/api/me").header("host", "globex.pets.test"), 404),
        (me("/api/me").header("host", "a.acme.pets.test"), 404),
        (me("/api/me").header("host", "elsewhere.test"), 404),
        (me("/api/me").header("x-tenant-id", ""), 404),
        (me("/%61cme/api/me"), 404),
    ] {
        let answer = send(request).await;
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

/// What an outsider can see of an answer: all but the request's id and the date.
pub(crate) fn seen(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let id = answer.header("x-request-id");
    let headers = answer.headers.iter().filter(|(name, _)| !matches!(name.as_str(), "x-request-id" | "date"));
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    (answer.status, headers, answer.text.replace(&id, "ID"))
}

on_both!(an_outsider_cannot_tell_a_foreign_tenant_from_one_that_never_was, 1, 1);
async fn an_outsider_cannot_tell_a_foreign_tenant_from_one_that_never_was(bed: Bed) {
    let mine = bed.tenant("outsider").await;
    let foreign = bed.tenant("foreign1").await;
    bed.tenant("foreign2").await;
    bed.done("POST", "/v1/tenants/foreign2/suspend", None).await;
    // The foreign tenant is known to the node, the outsider too.
    bed.until(&foreign, "/api/me", 200).await;
    bed.until(&mine, "/api/me", 200).await;
    let before = bed.metric(0, "data_plane_route_lookups_total").await;
    let named = |slug: &str, credential: Option<&str>| {
        let ways = [
            bed.request(0, "GET", &format!("/{slug}/api/pets")),
            bed.request(0, "GET", "/api/pets").header("host", format!("{slug}.pets.test")),
            bed.request(0, "GET", "/api/pets").header("x-tenant-id", slug),
            bed.request(0, "POST", &format!("/{slug}/api/pets")).json(&json!({ "name": "x" })),
        ];
        ways.map(|way| match credential {
            Some(credential) => way.bearer_auth(credential),
            None => way,
        })
    };
    let invented = "fh_aaaaaaaaaaaaaaaaaaaa_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (credential, status) in
        [(Some(mine.key.as_str()), 404), (None, 401), (Some("no key"), 401), (Some(invented), 401)]
    {
        let mut answers = Vec::new();
        for slug in ["foreign1", "foreign2", "neverwas"] {
            for request in named(slug, credential) {
                let answer = send(request).await;
                assert_eq!(answer.status, status, "{answer:?}");
                answers.push(seen(&answer));
            }
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:#?}");
    }
    // One look-up, of the invented key; none for any name.
    let after = bed.metric(0, "data_plane_route_lookups_total").await;
    assert!((after - before - 1.0).abs() < 0.1, "{before} look-ups before, {after} after");
}

on_both!(a_public_route_is_open_to_anybody_and_the_rest_is_not, 1, 1);
async fn a_public_route_is_open_to_anybody_and_the_rest_is_not(bed: Bed) {
    let acme = bed.tenant("acme").await;
    bed.tenant("asleep").await;
    bed.done("POST", "/v1/tenants/asleep/suspend", None).await;
    bed.done("POST", "/v1/tenants/acme/domains", Some(json!({ "host": "pets.acme.test" }))).await;
    bed.until(&acme, "/api/me", 200).await;
    let about = |path: &str| bed.request(0, "GET", path);
    for named in [
        about("/acme/api/about"),
        about("/api/about").header("host", "acme.pets.test"),
        about("/api/about").header("x-tenant-id", "acme"),
        about("/api/about").header("x-tenant-id", &acme.id),
        about("/acme/api/about").bearer_auth("no key at all"),
    ] {
        let answer = send(named).await;
        assert_eq!((answer.status, answer.json()["store"].as_str()), (200, Some("acme")), "{answer:?}");
    }
    // A domain that nobody had a moment ago is found once the node has heard of it.
    let host = about("/api/about").header("host", "pets.acme.test");
    while send(host.try_clone().unwrap()).await.status == 404 {}

    let never_was = seen(&send(about("/neverwas/api/about")).await);
    assert_eq!(never_was.0, 404);
    for unnamed in [
        about("/asleep/api/about"),
        about("/api/about"),
        about("/acme/api/about").header("x-tenant-id", "asleep"),
        about("/api/about").header("x-tenant-id", "01a20d1d-46bf-7645-9071-ab07ec72e333"),
        about("/a'--/api/about"),
    ] {
        assert_eq!(seen(&send(unnamed).await), never_was, "as one that never was");
    }
    // What the control plane was asked, it is not asked again.
    let before = bed.metric(0, "data_plane_route_lookups_total").await;
    for _ in 0..20 {
        assert_eq!(send(about("/neverwas/api/about")).await.status, 404);
    }
    assert!((bed.metric(0, "data_plane_route_lookups_total").await - before).abs() < 0.1);
    // And a tenant that is made after all is found at once.
    bed.tenant("neverwas").await;
    while send(about("/neverwas/api/about")).await.status == 404 {}
    // A slug that went to another leads there.
    bed.done("PATCH", "/v1/tenants/neverwas", Some(json!({ "slug": "moved" }))).await;
    while send(about("/moved/api/about")).await.status == 404 {}
    assert_eq!(send(about("/neverwas/api/about")).await.status, 404);

    // The walk to the other routes is as it was.
    assert_eq!(send(about("/acme/api/pets")).await.status, 401);
    let page = send(about("/openapi.json")).await.json();
    assert_eq!(page["paths"]["/api/about"]["get"]["security"], json!([]));
}

on_both!(a_handler_is_reached_by_those_alone_who_have_its_scope, 1, 1);
async fn a_handler_is_reached_by_those_alone_who_have_its_scope(bed: Bed) {
    let acme = bed.tenant("acme").await;
    let reader = bed.done("POST", "/v1/tenants/acme/keys", Some(json!({ "scopes": ["pets:read"] }))).await;
    let nothing = bed.done("POST", "/v1/tenants/acme/keys", Some(json!({ "scopes": [] }))).await;
    let [reader, nothing] = [reader, nothing]
        .map(|key| crate::bed::Tenant { key: key["api_key"].as_str().unwrap().to_owned(), ..acme.clone() });
    bed.until(&reader, "/api/pets", 200).await;
    bed.until(&nothing, "/api/me", 200).await;
    let pet = json!({ "name": "Rex", "species": "dog" });
    let post =
        |tenant: &crate::bed::Tenant| send(bed.request(0, "POST", "/api/pets").bearer_auth(&tenant.key).json(&pet));
    for refused in [post(&reader).await, post(&nothing).await, bed.get(0, &nothing, "/api/pets").await] {
        assert_eq!((refused.status, refused.kind().as_str()), (403, "scope-missing"), "{refused:?}");
        assert!(refused.text.contains("pets:"), "{refused:?}");
    }
    assert_eq!(post(&acme).await.status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_says_the_host_and_nobody_else_does() {
    let bed = Bed::start(Store::Sqlite, 1, 1).await;
    for slug in ["acme", "globex"] {
        bed.tenant(slug).await;
    }
    let about = |from: [u8; 4], host: &'static str| {
        let client = Client::builder().no_proxy().local_address(IpAddr::from(from)).build().unwrap();
        let call = client.get(format!("{}/api/about", bed.data[0].url)).header("host", "globex.pets.test");
        async move { send(call.header("x-forwarded-host", host)).await }
    };
    assert_eq!(about([127, 0, 0, 1], "acme.pets.test").await.json()["store"], "globex", "nobody trusts it");
    assert_eq!(about([127, 0, 0, 2], "acme.pets.test").await.json()["store"], "acme");
    assert_eq!(about([127, 0, 0, 2], "acme.pets.test, globex.pets.test").await.status, 404, "two hosts name nobody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_junk_costs_the_control_plane_a_small_rate_and_harms_nobody_else() {
    let bed = Bed::start(Store::Sqlite, 1, 1).await;
    let acme = bed.tenant("acme").await;
    let cold = bed.tenant("globex").await;
    bed.until(&acme, "/api/me", 200).await;
    let before = bed.metric(0, "data_plane_route_lookups_total").await;
    let started = Instant::now();
    // Keys, names and tokens that are nobody's, each of another: of one client, by a proxy that says so.
    let proxy = Client::builder().no_proxy().local_address(IpAddr::from([127, 0, 0, 2])).build().unwrap();
    let base = format!("{}/api/about", bed.data[0].url);
    let junk = |number: usize| {
        let id: String = format!("{number:020}").bytes().map(|digit| char::from(b'a' + digit - b'0')).collect();
        let claims = URL_SAFE_NO_PAD.encode(format!("{{\"iss\":\"https://{number}.test\"}}"));
        let call = match number % 3 {
            0 => proxy.get(base.replace("about", "me")).bearer_auth(format!("fh_{id}_{}", "A".repeat(43))),
            1 => proxy.get(base.replace("about", "me")).bearer_auth(format!("eyJhbGciOiJSUzI1NiJ9.{claims}.c2ln")),
            _ => proxy.get(&base).header("x-tenant-id", format!("nobody-{number}")),
        };
        send(call.header("x-forwarded-for", "198.51.100.7"))
    };
    let answers: Vec<Answer> = stream::iter(0..3_000).map(junk).buffer_unordered(16).collect().await;
    let seconds = started.elapsed().as_secs_f64();
    let asked = bed.metric(0, "data_plane_route_lookups_total").await - before;
    assert!(asked <= 200.0 + 10.0 * seconds + 1.0, "{asked} questions in {seconds} s");
    let (refused, told): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 429);
    assert!(told.iter().all(|answer| [401, 404].contains(&answer.status)), "{told:?}");
    // However slow the machine: what was not refused was within the rate.
    #[allow(clippy::cast_precision_loss, reason = "3,000 at most")]
    let told_of = told.len() as f64;
    assert!(told_of <= 200.0 + 10.0 * seconds + 1.0, "{} of them in {seconds} s", told.len());
    for answer in refused {
        assert_eq!(answer.kind(), "too-many-unknown");
        assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
    }
    // Who is known is served, also from there; and who is not, from elsewhere.
    let known = proxy.get(base.replace("about", "me")).bearer_auth(&acme.key).header("x-forwarded-for", "198.51.100.7");
    assert_eq!(send(known).await.status, 200);
    assert_eq!(bed.get(0, &cold, "/api/me").await.status, 200);
}
