//! A pooler between data planes and a server: one that pools sessions serves tenants as the server itself does, another is
//! refused with the reason.

use std::time::Instant;

use futures_util::future::join_all;
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};

use crate::bed::{Bed, PATIENCE, Store, Tenant, Tuning, send};
use crate::pgbouncer::PgBouncer;
use crate::postgres::Postgres;

const TENANTS: usize = 12;

fn server(url: &str, data_address: &str) -> Value {
    json!({ "name": "there", "engine": "postgres", "region": "there", "admin_url": url, "data_address": data_address,
            "capacity": 1_000, "warm": 1 })
}

async fn all_are_served(bed: &Bed, tenants: &[Tenant]) {
    join_all(tenants.iter().map(|tenant| bed.until(tenant, "/api/pets", 200))).await;
}

/// All tenants' URLs name this address.
async fn assert_named(bed: &Bed, address: &str) {
    for url in bed.open_urls().await {
        let (_, rest) = url.rsplit_once('@').unwrap();
        assert_eq!(rest.split_once('/').unwrap().0, address);
    }
}

async fn until_moved(bed: &Bed) {
    let deadline = Instant::now() + PATIENCE;
    while bed.done("GET", "/v1/servers/there", None).await.get("move").is_some() {
        assert!(Instant::now() < deadline, "the tenants do not follow");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_are_served_through_a_pooler_of_sessions() {
    if !PgBouncer::is_here("tenants_are_served_through_a_pooler_of_sessions") {
        return;
    }
    let mut bed = Bed::start_with(Store::Postgres, 1, 2, Tuning::DEFAULT).await;
    let postgres = Postgres::start();
    PgBouncer::prepare(&postgres).await;
    let pooler = PgBouncer::start(&postgres, "session");
    let made = bed.done("POST", "/v1/servers", Some(server(&postgres.url(), &pooler.address))).await;
    assert_eq!(made["data_address"], *pooler.address, "{made}");
    let tenants = bed.tenants_in("there", TENANTS).await;
    assert_named(&bed, &pooler.address).await;
    // Prepared statements and transactions, some at once.
    for round in 0..5 {
        let pets = join_all(tenants.iter().map(|tenant| {
            let pet = json!({ "name": format!("Pet {round}"), "species": "cat" });
            send(bed.request(round % 2, "POST", "/api/pets").bearer_auth(&tenant.key).json(&pet))
        }));
        for made in pets.await {
            assert_eq!(made.status, 201, "{made:?}");
        }
        all_are_served(&bed, &tenants).await;
    }
    // Both login roles in turn, and the first again with another password.
    for generation in 2..=4 {
        let path = format!("/v1/tenants/{}/rotate-credentials", tenants[0].slug);
        let rotated = bed.operator("POST", &path, None).await;
        assert_eq!(rotated.json()["tenant"]["generation"], generation, "{rotated:?}");
        all_are_served(&bed, &tenants[..1]).await;
    }
    bed.assert_healthy().await;

    // What the server shows of a data plane's sessions goes through the pooler: a process that is gone gives its share back.
    let db = service::pool::open(postgres.url()).await.unwrap();
    let shown = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'freehold-data-plane%'";
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), shown)).await.unwrap();
    assert!(row.unwrap().try_get_by_index::<i64>(0).unwrap() > 0, "no session shows whose it is");
    db.close().await.unwrap();
    bed.data[1].kill();
    bed.data[1].restart();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown = bed.done("GET", "/v1/servers/there", None).await;
        let shares = shown["connections"]["shares"].as_array().unwrap();
        if shares.len() == 2 && shares.iter().all(|share| share["is_leaving"] == false) {
            break;
        }
        assert!(Instant::now() < deadline, "a process that is gone keeps its share: {shown}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    // Without the pooler, and by it again.
    let place = postgres.place();
    for (address, named) in [(None, &place), (Some(&pooler.address), &pooler.address)] {
        let moved = bed.done("PATCH", "/v1/servers/there", Some(json!({ "data_address": address }))).await;
        assert_eq!((&moved["move"]["tenants"], &moved["data_address"]), (&json!(TENANTS), &json!(address)), "{moved}");
        until_moved(&bed).await;
        assert_named(&bed, named).await;
        all_are_served(&bed, &tenants).await;
    }
    bed.assert_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pooler_of_transactions_or_statements_is_refused_with_the_reason() {
    if !PgBouncer::is_here("a_pooler_of_transactions_or_statements_is_refused_with_the_reason") {
        return;
    }
    let bed = Bed::start_with(Store::Postgres, 1, 0, Tuning::DEFAULT).await;
    let postgres = Postgres::start();
    PgBouncer::prepare(&postgres).await;
    for mode in ["transaction", "statement"] {
        let pooler = PgBouncer::start(&postgres, mode);
        let refused = bed.operator("POST", "/v1/servers", Some(server(&postgres.url(), &pooler.address))).await;
        assert_eq!((refused.status, refused.kind().as_str()), (422, "server-unusable"), "{mode}: {refused:?}");
        let refused = refused.json();
        let why = refused["detail"].as_str().unwrap();
        assert!(why.contains("pools transactions or statements") && why.contains("pool_mode to session"), "{refused}");
        assert!(refused.to_string().contains("data_address"), "{refused}");
    }
    // Nothing is left of the looks, and nobody is where nothing listens.
    let db = service::pool::open(postgres.url()).await.unwrap();
    let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'fh\\_%'";
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), left)).await.unwrap();
    assert_eq!(row.unwrap().try_get_by_index::<i64>(0).unwrap(), 0);
    db.close().await.unwrap();
    let nobody = bed.operator("POST", "/v1/servers", Some(server(&postgres.url(), "127.0.0.1:1"))).await;
    assert_eq!((nobody.status, nobody.kind().as_str()), (422, "server-unusable"), "{nobody:?}");
    let wrong = bed.operator("POST", "/v1/servers", Some(server(&postgres.url(), "pooler"))).await;
    assert!(wrong.text.contains("host:port"), "{wrong:?}");
}
