//! A tenant's whole life, over the API and through data planes.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use futures_util::future::join_all;
use sea_orm::ConnectionTrait as _;
use serde_json::json;

use crate::bed::{Bed, Store, send};
use crate::on_both;

/// Requests that each data plane answers at any moment.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sqlite_tenants_folder_is_for_its_owner_alone_and_its_database_in_wal_mode() {
    let bed = Bed::start(Store::Sqlite, 1, 0).await;
    let acme = bed.tenant("acme").await;
    let (name, _) = bed.registry_row(&acme).await;
    let home = bed.folder.path().join("tenants").join(name);
    assert_eq!(std::fs::metadata(&home).unwrap().permissions().mode() & 0o7777, 0o700);
    // Bytes 18 and 19 of the header say how the file is written and read: 2 is WAL (SQLite's file format, 1.3.3). Nobody
    // opened it since the control plane made it, and whoever does finds it so.
    let database = std::fs::read(home.join("database.db")).unwrap();
    assert!(database.starts_with(b"SQLite format 3\0"));
    assert_eq!(database[18..20], [2, 2]);
}

on_both!(twenty_rotations_in_a_row_fail_no_request, 1, 2);
async fn twenty_rotations_in_a_row_fail_no_request(bed: Bed) {
    let acme = bed.tenant_on("unlimited", "acme").await;
    bed.until(&acme, "/api/pets", 200).await;
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = join_all((0..2 * AT_ONCE).map(|client| {
        let (bed, acme, is_over, answered) = (&bed, &acme, &is_over, &answered);
        async move {
            let mut number = 0;
            while !is_over.load(SeqCst) {
                number += 1;
                let method = if number % 4 == 0 { "POST" } else { "GET" };
                let mut request = bed.request(client % 2, method, "/api/pets").bearer_auth(&acme.key);
                if method == "POST" {
                    request = request.json(&serde_json::json!({ "name": "Load", "species": "cat" }));
                }
                let answer = send(request).await;
                assert!(matches!(answer.status, 200 | 201), "{answer:?}");
                answered.fetch_add(1, SeqCst);
            }
        }
    }));
    let rotations = async {
        for generation in 2..=21 {
            let before = answered.load(SeqCst);
            let rotated = bed.operator("POST", "/v1/tenants/acme/rotate-credentials", None).await;
            assert_eq!(rotated.status, 200, "{rotated:?}");
            let (tenant, operation) = (&rotated.json()["tenant"], &rotated.json()["operation"]);
            assert_eq!(
                (&tenant["generation"], &operation["state"]),
                (&generation.into(), &"done".into()),
                "{rotated:?}"
            );
            assert!(answered.load(SeqCst) > before, "requests were answered meanwhile");
        }
        is_over.store(true, SeqCst);
    };
    futures_util::join!(load, rotations);
    for node in 0..2 {
        // One for each URL that was used at all; a request that was at work with an old one may dial that once more.
        let dials = bed.metric(node, "data_plane_pool_dials_total").await;
        assert!((2.0..=42.0).contains(&dials), "{dials}");
    }
}

/// An admin of its own for the tenants' server, and another that the registry is reached by.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admins_password_is_rotated_and_known_to_the_control_plane_alone() {
    let bed = Bed::start(Store::Postgres, 1, 0).await;
    let shared = bed.operator("POST", "/v1/servers/local/rotate-admin", None).await;
    assert_eq!((shared.status, shared.kind().as_str()), (409, "registry-uses-admin"), "{shared:?}");

    let role = format!("admin_{}", uuid::Uuid::new_v4().simple());
    let superuser = service::pool::open(bed.superuser_url()).await.unwrap();
    // The server's owner role was made by the other admin, who alone may give it away.
    let made = format!(
        "CREATE ROLE {role} LOGIN CREATEDB CREATEROLE PASSWORD 'first'; \
                        GRANT freehold_owner, freehold_rw TO {role} WITH ADMIN OPTION"
    );
    superuser.execute_unprepared(&made).await.unwrap();
    let host = bed.superuser_url().rsplit_once('@').unwrap().1.to_owned();
    let old = format!("postgres://{role}:first@{host}");
    let server = json!({ "name": "own", "engine": "postgres", "region": "elsewhere", "admin_url": old, "capacity": 10,
                         "connection_budget": 20, "warm": 1 });
    assert_eq!(bed.operator("POST", "/v1/servers", Some(server)).await.status, 201);
    for round in 0..2 {
        let rotated = bed.operator("POST", "/v1/servers/own/rotate-admin", None).await;
        assert_eq!(rotated.status, 200, "{rotated:?}");
        assert!(service::pool::open(&old).await.is_err(), "the password of before");
        let body = json!({ "slug": format!("acme-{round}"), "name": "Acme", "plan": "test", "region": "elsewhere" });
        let tenant = bed.operator("POST", "/v1/tenants", Some(body)).await;
        assert_eq!((tenant.status, &tenant.json()["tenant"]["server"]), (201, &json!("own")), "{tenant:?}");
    }
    // Who knows another way in tells it.
    superuser.execute_unprepared(&format!("ALTER ROLE {role} PASSWORD 'second'")).await.unwrap();
    let url = |password: &str| json!({ "admin_url": format!("postgres://{role}:{password}@{host}") });
    let wrong = bed.operator("PATCH", "/v1/servers/own", Some(url("third"))).await;
    assert_eq!((wrong.status, wrong.kind().as_str()), (422, "server-unusable"), "{wrong:?}");
    bed.done("PATCH", "/v1/servers/own", Some(url("second"))).await;
    bed.assert_healthy().await;
}
