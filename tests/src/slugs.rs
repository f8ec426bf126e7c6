//! A slug that a tenant left leads to no other tenant for a while.

use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::json;

use crate::bed::{Answer, Bed};
use crate::on_both;

on_both!(the_slug_of_a_renamed_tenant_is_held_back_from_all_but_itself, 1, 0);
async fn the_slug_of_a_renamed_tenant_is_held_back_from_all_but_itself(bed: Bed) {
    for slug in ["acme", "globex"] {
        bed.tenant(slug).await;
    }
    let rename = async |tenant: &str, slug: &str| {
        bed.operator("PATCH", &format!("/v1/tenants/{tenant}"), Some(json!({ "slug": slug }))).await
    };
    let create =
        async |slug: &str| bed.operator("POST", "/v1/tenants", Some(json!({ "slug": slug, "name": "A" }))).await;
    let is_held = |answer: &Answer| {
        assert_eq!((answer.status, answer.kind().as_str()), (409, "slug-held"), "{answer:?}");
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with("Another tenant had this slug, and was renamed or deleted."), "{detail}");
    };
    assert_eq!(rename("acme", "acme").await.status, 200, "it has the slug");
    assert_eq!(rename("acme", "apex").await.status, 200);
    is_held(&create("acme").await);
    is_held(&rename("globex", "acme").await);
    // The tenant takes its slug back, and the one that it leaves is held in turn.
    assert_eq!(rename("apex", "acme").await.status, 200);
    is_held(&create("apex").await);
    is_held(&rename("globex", "apex").await);
    let registry = bed.registry().await;
    let held = Statement::from_string(registry.get_database_backend(), "SELECT slug FROM held_slugs");
    let held = registry.query_all_raw(held).await.unwrap();
    let held: Vec<String> = held.iter().map(|row| row.try_get("", "slug").unwrap()).collect();
    assert_eq!(held, ["apex"], "what the tenant has again is held back no more");
    // Once more, and it is held as long as the first time.
    assert_eq!(rename("acme", "apex").await.status, 200);
    is_held(&create("acme").await);
}
