//! What data planes notice beside attempts at other tenants, and what a tenant reads of its own trail.

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use super::records;
use crate::bed::{Bed, Tenant, send};
use crate::on_both;

/// A key of the tenant with these scopes.
async fn key(bed: &Bed, tenant: &Tenant, scopes: Value) -> Tenant {
    let made = bed.done("POST", &format!("/v1/tenants/{}/keys", tenant.id), Some(json!({ "scopes": scopes }))).await;
    Tenant { key: made["api_key"].as_str().unwrap().to_owned(), ..tenant.clone() }
}

on_both!(a_burst_of_bad_credentials_is_one_record_and_not_one_a_request, 1, 1);
async fn a_burst_of_bad_credentials_is_one_record_and_not_one_a_request(bed: Bed) {
    let acme = bed.tenant("acme").await;
    bed.until(&acme, "/api/me", 200).await;
    let mut forged = acme.key.clone();
    forged.replace_range(forged.len() - 1.., if forged.ends_with('A') { "B" } else { "A" });
    for number in 0..60 {
        let bad = if number % 2 == 0 { &forged } else { "no key" };
        let answer = send(bed.request(0, "GET", "/api/pets").bearer_auth(bad)).await;
        assert_eq!(answer.status, 401);
        // Who shows nothing tried nothing.
        assert_eq!(send(bed.request(0, "GET", "/api/pets")).await.status, 401);
    }
    let told = records(&bed, "action=security.bad-credentials", 1).await;
    assert_eq!((told.len(), &told[0]["payload"]["count"]), (1, &json!(10)));
    assert_eq!((&told[0]["chain"], &told[0]["payload"]["from"]), (&json!("platform"), &json!("127.0.0.1")));
    assert!(!told[0].to_string().contains(&forged));
}

on_both!(a_refused_suspended_and_a_limit_are_told_and_a_wrong_database_is, 1, 1);
async fn a_refused_suspended_and_a_limit_are_told_and_a_wrong_database_is(bed: Bed) {
    let (acme, globex) = (bed.tenant("acme").await, bed.tenant("globex").await);
    bed.until(&acme, "/api/me", 200).await;
    bed.done("POST", "/v1/tenants/acme/suspend", None).await;
    bed.until(&acme, "/api/me", 403).await;
    let told = records(&bed, "action=security.suspended-refused", 1).await;
    assert_eq!(told[0]["chain"], acme.id.as_str());
    assert_eq!(told[0]["payload"]["detail"], "the tenant is suspended");

    // One request at work at a time, and many that come at once.
    bed.done("PUT", "/v1/plans/tiny", Some(json!({ "connections": 1, "concurrency": 1 }))).await;
    let initech = bed.tenant_on("tiny", "initech").await;
    bed.until(&initech, "/api/me", 200).await;
    let mut refused = 0;
    while refused < 3 {
        let all = futures_util::future::join_all((0..20).map(|_| bed.get(0, &initech, "/api/pets"))).await;
        refused += all.iter().filter(|it| it.status == 429).count();
    }
    let told = records(&bed, "action=security.limit-hit", 1).await;
    assert_eq!((told.len(), &told[0]["chain"]), (1, &json!(initech.id)), "the first of a window alone");

    let db = service::pool::open(bed.database_url(&globex).await).await.unwrap();
    db.execute_unprepared(&format!("UPDATE freehold_stamp SET tenant_id = '{}'", acme.id)).await.unwrap();
    db.close().await.unwrap();
    let answer =
        send(bed.request(0, "GET", "/api/pets").bearer_auth(&globex.key).header("x-request-id", "r-wrong")).await;
    assert_eq!((answer.status, answer.kind().as_str()), (503, "database-refused"), "{answer:?}");
    let told = records(&bed, "request_id=r-wrong", 1).await;
    let payload = &told[0]["payload"];
    assert_eq!((&told[0]["chain"], &payload["tenant"]), (&json!("platform"), &json!(globex.id)));
    assert_eq!(payload["action"], "security.database-refused");
    assert!(payload["detail"].as_str().unwrap().contains("names another tenant"), "{payload}");
}

on_both!(a_tenant_reads_its_own_trail_and_no_other, 1, 1);
async fn a_tenant_reads_its_own_trail_and_no_other(mut bed: Bed) {
    let (acme, globex) = (bed.tenant("acme").await, bed.tenant("globex").await);
    let reader = key(&bed, &acme, json!(["audit:read"])).await;
    bed.until(&reader, "/api/me", 200).await;
    bed.done("POST", "/v1/tenants/globex/suspend", None).await;
    bed.done("PATCH", "/v1/tenants/acme", Some(json!({ "name": "Acme & Sons" }))).await;
    let page = bed.get(0, &reader, "/api/audit?limit=2").await;
    assert_eq!(page.status, 200, "{page:?}");
    let page = page.json();
    let actions: Vec<_> = page["items"].as_array().unwrap().iter().map(|it| &it["payload"]["action"]).collect();
    assert_eq!(actions, ["tenant.changed", "key.created"], "the newest first");
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = bed.get(0, &reader, &format!("/api/audit?cursor={cursor}")).await.json();
    let rest = rest["items"].as_array().unwrap().clone();
    assert_eq!(rest.last().unwrap()["payload"]["action"], "tenant.created");
    let all = [page["items"].as_array().unwrap().clone(), rest].concat();
    assert!(all.iter().all(|it| it["chain"] == acme.id.as_str()), "{all:?}");
    // Another's name leads nowhere, and a key that was not told to may not.
    assert_eq!(bed.get(0, &reader, "/globex/api/audit").await.status, 404);
    let refused = bed.get(0, &acme, "/api/audit").await;
    assert_eq!((refused.status, refused.kind().as_str()), (403, "scope-missing"));
    assert_eq!(bed.get(0, &reader, "/api/pets").await.status, 403);
    assert_eq!(bed.get(0, &reader, "/api/audit?cursor=!").await.status, 400);
    let page = send(bed.request(0, "GET", "/openapi.json")).await.json();
    assert!(page["paths"]["/api/audit"]["get"].is_object());
    bed.control[0].kill();
    let away = bed.get(0, &reader, "/api/audit").await;
    assert_eq!((away.status, away.kind().as_str()), (503, "trail-unavailable"));
    drop(globex);
}
