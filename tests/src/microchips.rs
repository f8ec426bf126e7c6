//! A rollout in the middle: one product serves tenants whose databases are at different schema versions.

use serde_json::{Value, json};

use crate::bed::{Answer, Bed, Tenant, send};
use crate::on_both;

const CHIP: &str = "985141006580319";

async fn call(bed: &Bed, tenant: &Tenant, method: &str, path: &str, body: Value) -> Answer {
    send(bed.request(0, method, path).bearer_auth(&tenant.key).json(&body)).await
}

/// A tenant whose database is made at this version.
async fn tenant_at(bed: &Bed, version: u32, slug: &str) -> Tenant {
    bed.new_tenants_get(version).await;
    let tenant = bed.tenant(slug).await;
    let made = bed.done("GET", &format!("/v1/tenants/{slug}"), None).await;
    assert_eq!(made["schema_version"].as_u64(), Some(version.into()), "{made}");
    tenant
}

on_both!(tenants_at_both_schema_versions_are_served, 1, 1);
async fn tenants_at_both_schema_versions_are_served(bed: Bed) {
    let behind = tenant_at(&bed, 1, "behind").await;
    let ahead = tenant_at(&bed, 3, "ahead").await;
    for tenant in [&behind, &ahead] {
        let body = json!({ "name": "Rex", "species": "dog", "breed": "Collie" });
        let made = call(&bed, tenant, "POST", "/api/pets", body).await;
        assert_eq!((made.status, made.json().get("microchip_id")), (201, None), "{made:?}");
        let path = format!("/api/pets/{}", made.json()["id"].as_str().unwrap());
        assert_eq!(bed.get(0, tenant, &path).await.json(), made.json());
        let renamed = call(&bed, tenant, "PATCH", &path, json!({ "name": "Max", "microchip_id": null })).await;
        assert_eq!((renamed.status, renamed.json()["name"].as_str()), (200, Some("Max")), "{renamed:?}");
        let unchanged = call(&bed, tenant, "PATCH", &path, json!({})).await;
        assert_eq!((unchanged.status, unchanged.json()), (200, renamed.json()));
        let listed = bed.get(0, tenant, "/api/pets").await.json();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(2), "{listed}");
        for bad in ["1", "98514100658031x", "9851410065803190"] {
            let refused = call(&bed, tenant, "PATCH", &path, json!({ "microchip_id": bad })).await;
            assert_eq!((refused.status, refused.kind().as_str()), (422, "invalid-body"), "{refused:?}");
        }
        let (chipped, changed) = (
            call(&bed, tenant, "POST", "/api/pets", json!({ "name": "Bo", "species": "cat", "microchip_id": CHIP }))
                .await,
            call(&bed, tenant, "PATCH", &path, json!({ "microchip_id": CHIP })).await,
        );
        let found = bed.get(0, tenant, &format!("/api/pets?microchip_id={CHIP}")).await;
        assert_eq!(found.status, 200, "{found:?}");
        let found = found.json()["items"].as_array().map(Vec::len);
        if tenant.slug == "behind" {
            for refused in [chipped, changed] {
                assert_eq!((refused.status, refused.kind().as_str()), (409, "microchips-not-kept-yet"), "{refused:?}");
                assert_eq!(refused.json()["errors"][0]["field"], "microchip_id");
            }
            assert_eq!(found, Some(0));
            let listed = bed.get(0, tenant, "/api/pets").await.json();
            assert_eq!(listed["items"].as_array().map(Vec::len), Some(2), "what was refused is not there: {listed}");
        } else {
            assert_eq!((chipped.status, chipped.json()["microchip_id"].as_str()), (201, Some(CHIP)), "{chipped:?}");
            assert_eq!((changed.status, changed.json()["microchip_id"].as_str()), (200, Some(CHIP)), "{changed:?}");
            assert_eq!(found, Some(2));
            let without = call(&bed, tenant, "PATCH", &path, json!({ "microchip_id": null })).await;
            assert_eq!((without.status, without.json().get("microchip_id")), (200, None), "{without:?}");
        }
        assert_eq!(call(&bed, tenant, "DELETE", &path, json!({})).await.status, 204);
    }
}
