//! What an operator changes, every node acts on: also when it missed messages.

use std::time::Instant;

use serde_json::json;

use crate::bed::{Bed, PATIENCE};
use crate::on_both;

on_both!(a_change_is_acted_on_by_every_node_through_every_replica, 2, 2);
async fn a_change_is_acted_on_by_every_node_through_every_replica(bed: Bed) {
    let acme = bed.tenant("acme").await;
    bed.until(&acme, "/api/me", 200).await;
    // Written at one replica, followed at the other too.
    for at in [0, 1] {
        assert_eq!(bed.operator_at(at, "POST", "/v1/tenants/acme/suspend", None).await.status, 200);
        bed.until(&acme, "/api/me", 403).await;
        assert_eq!(bed.get(0, &acme, "/api/me").await.kind(), "tenant-suspended");
        assert_eq!(bed.operator_at(at, "POST", "/v1/tenants/acme/resume", None).await.status, 200);
        bed.until(&acme, "/api/me", 200).await;
    }
    let key = acme.key.split('_').nth(1).unwrap();
    assert_eq!(bed.operator_at(1, "DELETE", &format!("/v1/tenants/acme/keys/{key}"), None).await.status, 204);
    bed.until(&acme, "/api/me", 401).await;
}

on_both!(configuration_decides_what_a_list_shows, 1, 1);
async fn configuration_decides_what_a_list_shows(bed: Bed) {
    let acme = bed.tenant("acme").await;
    let count = async || bed.get(0, &acme, "/api/pets").await.json()["items"].as_array().map_or(0, Vec::len);
    let sample = bed.get(0, &acme, "/api/pets").await.json()["items"][0].clone();
    assert_eq!((sample["name"].as_str(), sample["breed"].as_str()), (Some("Sample Pet"), Some("Golden Retriever")));
    let path = format!("/api/pets/{}", sample["id"].as_str().unwrap());
    let gone = crate::bed::send(bed.request(0, "DELETE", &path).bearer_auth(&acme.key)).await;
    assert_eq!(gone.status, 204);
    assert_eq!(bed.get(0, &acme, &path).await.status, 404);
    assert_eq!(count().await, 0);
    bed.done("PUT", "/v1/tenants/acme/config/include_deleted_pets", Some(json!(true))).await;
    let deadline = Instant::now() + PATIENCE;
    while count().await == 0 {
        assert!(Instant::now() < deadline, "the configuration was not heard");
    }
    assert_eq!(count().await, 1);
}

on_both!(a_new_tenant_is_served_by_a_node_that_nobody_restarted_and_a_deleted_one_is_gone, 1, 2);
async fn a_new_tenant_is_served_by_a_node_that_nobody_restarted_and_a_deleted_one_is_gone(bed: Bed) {
    let first = bed.tenant("first").await;
    bed.until(&first, "/api/pets", 200).await;
    let third = bed.tenant("third").await;
    bed.until(&third, "/third/api/pets", 200).await;
    let answer = bed.operator("DELETE", "/v1/tenants/third", None).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let operation = answer.header("location");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let operation = bed.done("GET", &operation, None).await;
        if operation["state"] == "done" {
            break;
        }
        assert!(Instant::now() < deadline, "{operation}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    bed.until(&third, "/api/pets", 401).await;
    bed.until(&first, "/api/pets", 200).await;
    assert_eq!(bed.operator("GET", "/v1/tenants/third", None).await.status, 404);
    let tombstone = bed.done("GET", &format!("/v1/tenants/{}", third.id), None).await;
    assert_eq!(tombstone["status"], "deleted");
    // What was destroyed is told; the slug is held back, and links of before lead to nobody else.
    let erasure = &tombstone["erasure"];
    assert_eq!(erasure["row_counts"], json!({ "pets": 1, "users": 1 }), "{tombstone}");
    assert_eq!(erasure["requested_by"], "tests", "by who called");
    assert!(erasure["erased_at"].is_string() && erasure["requested_at"].is_string());
    let again = bed.operator("POST", "/v1/tenants", Some(json!({ "slug": "third", "name": "Third" }))).await;
    assert_eq!((again.status, again.kind().as_str()), (409, "slug-held"), "{again:?}");
    let renamed = bed.operator("PATCH", "/v1/tenants/first", Some(json!({ "slug": "third" }))).await;
    assert_eq!((renamed.status, renamed.kind().as_str()), (409, "slug-held"));
}
