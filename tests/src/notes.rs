//! The product that the documentation shows: what it says is what runs here, on both planes.

use serde_json::{Value, json};

use crate::bed::{Bed, Store, Tuning, send};

async fn the_product_of_the_documentation_serves_its_tenants(store: Store) {
    let mut bed = Bed::start_of("notes-control-plane", store, 1, Tuning::DEFAULT).await;
    let control = bed.control[0].url.clone();
    bed.add_node_of("notes-data-plane", &control);
    let (acme, globex) = (bed.tenant("acme").await, bed.tenant("globex").await);
    for tenant in [&acme, &globex] {
        bed.until(tenant, "/api/notes", 200).await;
        assert_eq!(bed.get(0, tenant, "/api/notes").await.json(), json!(["Welcome"]), "seeded once");
    }
    assert_eq!(send(bed.request(0, "GET", "/acme/api/notes")).await.status, 401);
    assert_eq!(send(bed.request(0, "GET", "/acme/api/notes").bearer_auth(&globex.key)).await.status, 404);
    let page: Value = send(bed.request(0, "GET", "/openapi.json")).await.json();
    assert!(page["paths"]["/api/notes"]["get"].is_object(), "{page}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    the_product_of_the_documentation_serves_its_tenants(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres() {
    the_product_of_the_documentation_serves_its_tenants(Store::Postgres).await;
}
