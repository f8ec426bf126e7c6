//! What breaks, breaks for one tenant alone, says when to come again, and heals by itself.

use sea_orm::{ConnectionTrait, Statement};
use serde_json::json;

use crate::bed::{Bed, Store, Tenant};
use crate::on_both;
use crate::postgres::Postgres;

on_both!(a_database_that_is_stamped_for_another_tenant_is_refused, 1, 1);
async fn a_database_that_is_stamped_for_another_tenant_is_refused(bed: Bed) {
    let (acme, globex) = (bed.tenant("acme").await, bed.tenant("globex").await);
    let db = service::pool::open(bed.database_url(&acme).await).await.unwrap();
    let stamp = |id: &str| format!("UPDATE freehold_stamp SET tenant_id = '{id}'");
    db.execute_unprepared(&stamp(&globex.id)).await.unwrap();
    let refused = bed.get(0, &acme, "/api/pets").await;
    assert_eq!((refused.status, refused.kind().as_str()), (503, "database-refused"), "{refused:?}");
    assert!(!refused.header("retry-after").is_empty());
    let deadline = std::time::Instant::now() + crate::bed::PATIENCE;
    while !bed.data[0].log().contains("database-refused") {
        assert!(std::time::Instant::now() < deadline, "it is not audited");
        tokio::task::yield_now().await;
    }
    assert_eq!(bed.get(0, &globex, "/api/pets").await.status, 200);
    db.execute_unprepared("DELETE FROM freehold_stamp").await.unwrap();
    assert_eq!(bed.get(0, &acme, "/api/pets").await.kind(), "database-refused");
    let insert = format!("INSERT INTO freehold_stamp (id, tenant_id) VALUES (1, '{}')", acme.id);
    db.execute_unprepared(&insert).await.unwrap();
    bed.until(&acme, "/api/pets", 200).await;
}

on_both!(a_url_sealed_for_one_tenant_does_not_open_in_another_row, 1, 1);
async fn a_url_sealed_for_one_tenant_does_not_open_in_another_row(bed: Bed) {
    let (acme, globex) = (bed.tenant("acme").await, bed.tenant("globex").await);
    let (_, foreign) = bed.registry_row(&globex).await;
    let registry = bed.registry().await;
    let id = uuid::Uuid::parse_str(&acme.id).unwrap();
    let copy = Statement::from_sql_and_values(
        registry.get_database_backend(),
        "UPDATE tenants SET sealed_url = $1 WHERE id = $2",
        [foreign.into(), id.into()],
    );
    registry.execute_raw(copy).await.unwrap();
    let refused = bed.get(0, &acme, "/api/pets").await;
    assert_eq!((refused.status, refused.kind().as_str()), (503, "database-refused"), "{refused:?}");
    assert_eq!(bed.get(0, &globex, "/api/pets").await.status, 200);
}

on_both!(a_node_whose_ring_lacks_a_key_says_so_and_serves_once_it_has_it, 1, 1);
async fn a_node_whose_ring_lacks_a_key_says_so_and_serves_once_it_has_it(mut bed: Bed) {
    let acme = bed.tenant("acme").await;
    bed.until(&acme, "/api/pets", 200).await;
    let config = bed.folder.path().join("data-0.toml");
    let whole = std::fs::read_to_string(&config).unwrap();
    let ring = whole.lines().find(|line| line.starts_with("keys = ")).unwrap();
    let without = format!("keys = {{ k0 ={}", ring.rsplit_once("k0 =").unwrap().1);
    std::fs::write(&config, whole.replace(ring, &without).replace("primary = \"k1\"", "primary = \"k0\"")).unwrap();
    bed.data[0].restart();
    // It says so by itself, before anybody asks for a tenant.
    let deadline = std::time::Instant::now() + crate::bed::PATIENCE;
    while !bed.data[0].log().contains("lacks keys that the control plane has") {
        assert!(std::time::Instant::now() < deadline, "it does not tell at its start: {}", bed.data[0].log());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let told = bed.data[0].log();
    let told = told.lines().find(|line| line.contains("lacks keys that the control plane has")).unwrap();
    assert!(told.contains("ERROR") && told.contains("k1") && !told.contains("k0"), "{told}");
    assert!((bed.metric(0, "data_plane_seal_keys_missing").await - 1.0).abs() < 0.1);
    let answer = loop {
        let answer = bed.get(0, &acme, "/api/pets").await;
        // It has only just started, and may have asked the control plane for nothing yet.
        if answer.kind() != "credential-unknown-now" {
            break answer;
        }
        assert!(std::time::Instant::now() < deadline, "{answer:?}");
    };
    assert_eq!((answer.status, answer.kind().as_str()), (503, "key-missing"), "{answer:?}");
    assert!(!answer.header("retry-after").is_empty() && !answer.text.contains("k1"), "{answer:?}");
    let deadline = std::time::Instant::now() + crate::bed::PATIENCE;
    while !bed.data[0].log().contains("sealed with the key \\\"k1\\\"") {
        assert!(std::time::Instant::now() < deadline, "the log names the key: {}", bed.data[0].log());
        tokio::task::yield_now().await;
    }
    std::fs::write(&config, whole).unwrap();
    bed.data[0].restart();
    bed.until(&acme, "/api/pets", 200).await;
    assert!(bed.metric(0, "data_plane_seal_keys_missing").await.abs() < 0.1);
    assert!(!bed.data[0].log().contains("lacks keys"), "{}", bed.data[0].log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_database_file_is_503_for_its_tenant_alone_and_heals() {
    let bed = Bed::start(Store::Sqlite, 1, 1).await;
    let (acme, globex) = (bed.tenant("acme").await, bed.tenant("globex").await);
    bed.until(&acme, "/api/pets", 200).await;
    let (name, _) = bed.registry_row(&acme).await;
    let folder = bed.folder.path().join("tenants").join(name);
    let moved = bed.folder.path().join("moved");
    std::fs::rename(&folder, &moved).unwrap();
    // Its nodes look at the file every few milliseconds.
    bed.until(&acme, "/api/pets", 503).await;
    for _ in 0..3 {
        let answer = bed.get(0, &acme, "/api/pets").await;
        assert_eq!((answer.status, answer.kind().as_str()), (503, "database-unavailable"), "{answer:?}");
        assert!(!answer.header("retry-after").is_empty());
        assert_eq!(bed.get(0, &globex, "/api/pets").await.status, 200);
    }
    assert!(!folder.exists(), "dialling made a database that was not there");
    std::fs::rename(&moved, &folder).unwrap();
    bed.until(&acme, "/api/pets", 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_gone_is_503_for_its_tenants_alone_and_heals() {
    let mut server = Postgres::start();
    let bed = Bed::start(Store::Postgres, 1, 1).await;
    let second = json!({ "name": "second", "engine": "postgres", "region": "there", "admin_url": server.url(),
        "capacity": 10, "connection_budget": 50, "warm": 0 });
    bed.done("POST", "/v1/servers", Some(second)).await;
    let here = bed.tenant("here").await;
    let mut there = Vec::new();
    for slug in ["warm", "cold"] {
        let wanted = json!({ "slug": slug, "name": slug, "plan": "test", "region": "there" });
        let made = bed.done("POST", "/v1/tenants", Some(wanted)).await;
        assert_eq!(made["tenant"]["status"], "active", "{made}");
        let key = bed.done("POST", &format!("/v1/tenants/{slug}/keys"), Some(json!({ "name": "test" }))).await;
        let [id, key] = [&made["tenant"]["id"], &key["api_key"]].map(|it| it.as_str().unwrap().to_owned());
        there.push(Tenant { id, slug: slug.to_owned(), key });
    }
    bed.until(&here, "/api/pets", 200).await;
    bed.until(&there[0], "/api/pets", 200).await;
    let pet = json!({ "name": "Kept", "species": "cat" });
    let made = crate::bed::send(bed.request(0, "POST", "/api/pets").bearer_auth(&there[0].key).json(&pet)).await;
    assert_eq!(made.status, 201, "{made:?}");

    server.stop();
    for _ in 0..3 {
        for tenant in &there {
            let answer = bed.get(0, tenant, "/api/pets").await;
            assert_eq!((answer.status, answer.kind().as_str()), (503, "database-unavailable"), "{tenant:?} {answer:?}");
            assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0, "{answer:?}");
        }
        assert_eq!(bed.get(0, &here, "/api/pets").await.status, 200);
    }
    server.restart();
    for tenant in &there {
        bed.until(tenant, "/api/pets", 200).await;
    }
    let kept = bed.get(0, &there[0], "/api/pets?species=cat").await.json();
    assert_eq!(kept["items"][0]["name"], "Kept", "{kept}");
}

on_both!(what_a_node_knows_it_serves_without_the_control_plane, 1, 1);
async fn what_a_node_knows_it_serves_without_the_control_plane(mut bed: Bed) {
    let (known, unknown) = (bed.tenant("known").await, bed.tenant("unknown").await);
    let suspended = bed.tenant("suspended").await;
    bed.until(&known, "/api/pets", 200).await;
    bed.done("POST", "/v1/tenants/suspended/suspend", None).await;
    bed.until(&suspended, "/api/pets", 403).await;
    bed.control[0].kill();
    assert_eq!(bed.get(0, &known, "/api/pets").await.status, 200);
    assert_eq!(bed.get(0, &suspended, "/api/pets").await.status, 403);
    let answer = bed.get(0, &unknown, "/api/pets").await;
    assert_eq!((answer.status, answer.kind().as_str()), (503, "credential-unknown-now"), "{answer:?}");
    bed.control[0].restart();
    bed.until(&unknown, "/api/pets", 200).await;
}

on_both!(a_control_plane_that_is_killed_while_it_creates_goes_on_after, 1, 0);
async fn a_control_plane_that_is_killed_while_it_creates_goes_on_after(mut bed: Bed) {
    for round in 0..4u32 {
        let slug = format!("tenant-{round}");
        let url = format!("{}/v1/tenants", bed.control[0].url);
        let call = bed.client.post(url).bearer_auth(&bed.token);
        let accepted = crate::bed::send(call.json(&serde_json::json!({ "slug": slug, "name": slug }))).await;
        assert_eq!(accepted.status, 202, "{accepted:?}");
        bed.control[0].restart();
        let deadline = std::time::Instant::now() + crate::bed::PATIENCE;
        loop {
            let tenant = bed.done("GET", &format!("/v1/tenants/{slug}"), None).await;
            if tenant["status"] == "active" {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{tenant}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}
