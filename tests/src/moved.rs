//! A server that moved: its tenants are served at its new address within seconds, by the passwords that they had, whoever
//! dies meanwhile and whatever else is at work.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, Statement, TransactionTrait as _};
use serde_json::{Value, json};

use crate::bed::{Bed, PATIENCE, Store, Tenant, Tuning, send};
use crate::postgres::Postgres;
use crate::way::Way;

/// Tenants on the server that moves.
const TENANTS: usize = 32;
/// All are served again within this time, also on a machine that is busy.
const SECONDS: Duration = Duration::from_secs(10);
/// What is taken over is taken over within a second.
const TUNING: Tuning = Tuning { tenants: "grace_seconds = 0\nlease_seconds = 1\n", ..Tuning::DEFAULT };

/// Its admin's URL by another address.
fn url_by(server: &Postgres, address: &str) -> String {
    server.url().replace(&server.place(), address)
}

/// Registers a server by an address, and makes tenants there.
async fn tenants_by(bed: &Bed, server: &Postgres, address: &str) -> Vec<Tenant> {
    bed.register("there", &url_by(server, address), &json!({ "warm": 2 })).await;
    bed.tenants_in("there", TENANTS).await
}

async fn all_are_served(bed: &Bed, tenants: &[Tenant]) {
    join_all(tenants.iter().map(|tenant| bed.until(tenant, "/api/pets", 200))).await;
}

/// Says that the server is reached by another address; answers the server.
async fn move_to(bed: &Bed, server: &Postgres, address: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let moved = json!({ "admin_url": url_by(server, address) });
        let answer = bed.operator("PATCH", "/v1/servers/there", Some(moved)).await;
        if answer.status == 200 {
            return answer.json();
        }
        // A server that has much to do may not answer in time.
        assert!(answer.kind() == "server-unusable" && Instant::now() < deadline, "{answer:?}");
    }
}

/// Until so many have followed; none: until the move is over.
async fn until_moved(bed: &Bed, done: Option<usize>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let server = bed.done("GET", "/v1/servers/there", None).await;
        let is_so = match done {
            Some(done) => server["move"]["done"] == done,
            None => server.get("move").is_none(),
        };
        if is_so {
            return;
        }
        assert!(Instant::now() < deadline, "{done:?} have not followed: {server}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the tenants' URLs say before and behind the address.
async fn logins(bed: &Bed, address: &str) -> BTreeSet<(String, String)> {
    let urls = bed.open_urls().await;
    let urls = urls.iter().map(|url| {
        let (login, rest) = url.rsplit_once('@').unwrap();
        let (at, database) = rest.split_once('/').unwrap();
        assert_eq!(at, address, "a URL names another address");
        (login.to_owned(), database.to_owned())
    });
    urls.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_tenants_of_a_server_that_moved_are_served_within_seconds_by_the_same_passwords() {
    let bed = Bed::start_with(Store::Postgres, 1, 2, TUNING).await;
    let (server, other) = (Postgres::start(), Postgres::start());
    let (before, after) = (Way::to(&server.place()).await, Way::to(&server.place()).await);
    let tenants = tenants_by(&bed, &server, &before.address).await;
    all_are_served(&bed, &tenants).await;
    let had = logins(&bed, &before.address).await;
    assert_eq!(had.len(), TENANTS);

    // Another server that is well and has none of the databases.
    let elsewhere = json!({ "admin_url": other.url() });
    let refused = bed.operator("PATCH", "/v1/servers/there", Some(elsewhere)).await;
    assert_eq!((refused.status, refused.kind().as_str()), (422, "server-mismatch"), "{refused:?}");
    let why = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(why.contains(&format!("lacks the databases of {TENANTS} of {TENANTS} tenants")), "{why}");
    all_are_served(&bed, &tenants).await;

    before.cut().await;
    let begun = Instant::now();
    let moved = move_to(&bed, &server, &after.address).await;
    assert_eq!(moved["move"]["tenants"], TENANTS, "{moved}");
    all_are_served(&bed, &tenants).await;
    let took = begun.elapsed();
    assert!(took < SECONDS, "{took:?}");
    until_moved(&bed, None).await;
    assert_eq!(logins(&bed, &after.address).await, had, "no login has another password");
    let id = moved["move"]["operation"].as_str().unwrap();
    let operation = bed.done("GET", &format!("/v1/operations/{id}"), None).await;
    assert_eq!((&operation["kind"], &operation["state"]), (&json!("move"), &json!("done")), "{operation}");
    let listed = bed.all("/v1/operations?server=there", 50).await;
    assert_eq!(listed.iter().map(|it| &it["id"]).collect::<Vec<_>>(), [id]);
    // A database that was ready before is a tenant's at the new address.
    let late = bed.tenant_of("test", Some("there"), &format!("there-{TENANTS}")).await;
    all_are_served(&bed, &[late]).await;
    logins(&bed, &after.address).await;
    // The same address and another way to say it: nobody has to follow.
    let same = move_to(&bed, &server, &after.address).await;
    assert!(same.get("move").is_none(), "{same}");
    bed.assert_healthy().await;
}

/// Holds a tenant's row in the registry, so that nobody else changes it.
async fn hold(bed: &Bed, table: &str, column: &str, tenant: &Tenant) -> DatabaseTransaction {
    let held = bed.registry().await.begin().await.unwrap();
    let id = uuid::Uuid::parse_str(&tenant.id).unwrap();
    let lock = format!("SELECT 1 FROM {table} WHERE {column} = $1 FOR UPDATE");
    held.query_one_raw(Statement::from_sql_and_values(held.get_database_backend(), lock, [id.into()])).await.unwrap();
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_goes_on_after_a_kill_and_with_rotations_at_the_same_time() {
    let mut bed = Bed::start_with(Store::Postgres, 1, 1, TUNING).await;
    let server = Postgres::start();
    let (first, second) = (Way::to(&server.place()).await, Way::to(&server.place()).await);
    let tenants = tenants_by(&bed, &server, &first.address).await;
    all_are_served(&bed, &tenants).await;
    let (had, first_address) = (logins(&bed, &first.address).await, first.address.clone());

    // A rotation that has written its new URL down, with the old address, and cannot go on there.
    first.cut().await;
    let rotate = format!("/v1/tenants/{}/rotate-credentials", tenants[0].slug);
    let rotation = bed.client.post(format!("{}{rotate}", bed.control[0].url)).bearer_auth(&bed.token);
    let rotation = send(rotation).await.json()["operation"]["id"].as_str().unwrap().to_owned();
    let deadline = Instant::now() + PATIENCE;
    while bed.registry_number("SELECT count(*) FROM databases WHERE next_sealed_url IS NOT NULL").await == 0 {
        assert!(Instant::now() < deadline, "no rotation begins");
    }
    move_to(&bed, &server, &second.address).await;
    until_moved(&bed, None).await;
    bed.until_ended(&rotation).await;
    let rotation = bed.done("GET", &format!("/v1/operations/{rotation}"), None).await;
    assert_eq!(rotation["state"], "done", "{rotation}");
    let has = logins(&bed, &second.address).await;
    assert_eq!((has.len(), has.difference(&had).count()), (TENANTS, 1), "one has another login, and all the address");
    all_are_served(&bed, &tenants).await;
    let first = Way::on(&first_address, &server.place()).await;

    // Some rotate while the server moves there and back.
    let rotations = join_all(tenants[..8].iter().map(|tenant| {
        let (bed, path) = (&bed, format!("/v1/tenants/{}/rotate-credentials", tenant.slug));
        async move { bed.operator("POST", &path, None).await }
    }));
    let moves = async {
        for address in [&first.address, &second.address, &first.address, &second.address] {
            move_to(&bed, &server, address).await;
            tokio::task::yield_now().await;
        }
    };
    let (rotations, ()) = tokio::join!(rotations, moves);
    for rotation in rotations {
        assert!(matches!(rotation.status, 200 | 202), "{rotation:?}");
    }
    until_moved(&bed, None).await;
    all_are_served(&bed, &tenants).await;
    let had = logins(&bed, &second.address).await;
    bed.assert_healthy().await;

    // Killed when all but one have followed, whose row somebody else has.
    let held = hold(&bed, "databases", "tenant_id", &tenants[1]).await;
    second.cut().await;
    let answer = move_to(&bed, &server, &first.address).await;
    assert_eq!(answer["move"]["tenants"], TENANTS, "{answer}");
    until_moved(&bed, Some(TENANTS - 1)).await;
    bed.control[0].kill();
    held.rollback().await.unwrap();
    bed.control[0].restart();
    until_moved(&bed, None).await;
    all_are_served(&bed, &tenants).await;
    assert_eq!(logins(&bed, &first.address).await, had);
    bed.assert_healthy().await;
}
