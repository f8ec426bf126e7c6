//! A server that goes away, hangs, or has no connection left, and the tenants of another server.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sea_orm::{ConnectOptions, ConnectionTrait as _, DatabaseConnection};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::load::{Load, Others};
use super::{OTHERS, SETTINGS, TROUBLED, TUNING, ask, ask_all, assert_all_refused, tenants_on, until};
use crate::bed::{Bed, PATIENCE, Store, Tenant};
use crate::postgres::Postgres;
use crate::way::Way;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sick_server_harms_no_tenant_of_another() {
    let (well, mut sick) = (Postgres::start_with(SETTINGS), Postgres::start_with(SETTINGS));
    let (way, hole) = (Way::to(&sick.place()).await, BlackHole::dig().await);
    let bed = Bed::start_with(Store::Sqlite, 1, 1, TUNING).await;
    let tenants = tenants_on(&bed, "well", &well, &Value::Null, OTHERS).await;
    let troubled = tenants_on(&bed, "sick", &sick, &json!({ "data_address": way.address }), TROUBLED).await;
    // The data plane reaches the anchor and three tenants by the way, and two without it. The last one is behind the black hole.
    let by_way = &troubled[..3];
    for tenant in &troubled[3..5] {
        bed.point_to(tenant, &sick.place()).await;
    }
    let (lost, reached) = troubled.split_last().unwrap();
    bed.point_to(lost, &hole.address).await;
    let mut others = Others::new(&bed, "well", &well, tenants).await;
    until(&bed, "GET", reached, 200).await;

    let mut mended = None;
    let during = "an address took no connection";
    let seen = others
        .beside(reached, during, async |load: &Load| {
            let asked = join_all((0..4).map(|_| ask(&bed, "GET", lost)));
            assert_all_refused(&load.turn_before(asked).await);
            mended = Some(hole.mend(&sick.place()).await);
            until(&bed, "GET", &troubled, 200).await;
        })
        .await;
    // The server has other addresses: the tenants there see nothing of it either.
    seen.assert_served("its server's other tenants", during);

    others
        .beside(&troubled, "the network swallowed what was sent by open connections", async |load: &Load| {
            way.swallow();
            assert_all_refused(&load.turn_before(ask_all(&bed, by_way)).await);
            way.open();
            way.forget();
            until(&bed, "GET", &troubled, 200).await;
        })
        .await;

    others
        .beside(&troubled, "a server was stopped and started again", async |load: &Load| {
            sick.stop();
            until(&bed, "GET", &troubled, 503).await;
            load.turn().await;
            sick.restart();
            until(&bed, "GET", &troubled, 200).await;
        })
        .await;

    others
        .beside(&troubled, "a server was frozen", async |load: &Load| {
            sick.freeze();
            assert_all_refused(&load.turn_before(ask_all(&bed, &troubled)).await);
            sick.thaw();
            until(&bed, "GET", &troubled, 200).await;
        })
        .await;

    let admin = sick.look("postgres").await;
    others
        .beside(&troubled, "a server was full", async |load: &Load| {
            let held = Box::pin(fill(&bed, &sick, &admin, &troubled[0])).await;
            load.turn().await;
            drop(held);
            until(&bed, "GET", &troubled, 200).await;
        })
        .await;

    others.assert_kept().await;
    assert_told_once(&bed.data[0].log());
    drop(mended);
}

/// The log tells once that a server's anchor cannot be opened, and not for each attempt.
fn assert_told_once(log: &str) {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let of_the_sick = lines.filter(|line| line["server"] == "sick");
    let told: Vec<String> = of_the_sick
        .filter_map(|line| line["message"].as_str().map(str::to_owned))
        .filter(|told| told.starts_with("could not open the anchor session") || told.ends_with("is open again"))
        .collect();
    assert!(told.len() > 1, "{told:?}");
    assert_eq!(told.windows(2).find(|two| two[0] == two[1]), None, "{told:?}");
}

/// Takes all connections of a server, also those of the data plane, until a tenant is refused for want of one.
async fn fill(
    bed: &Bed,
    server: &Postgres,
    admin: &DatabaseConnection,
    tenant: &Tenant,
) -> Vec<Option<DatabaseConnection>> {
    let end =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'freehold-data-plane%'";
    let mut held = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        admin.execute_unprepared(end).await.unwrap();
        loop {
            // Several at once, or else the data plane gets back what it had.
            let taken = join_all((0..8).map(|_| take(server))).await;
            let is_full = taken.iter().any(Option::is_none);
            held.extend(taken);
            if is_full {
                break;
            }
        }
        let answer = ask(bed, "GET", tenant).await;
        if answer.kind() == "server-busy" {
            return held;
        }
        assert!(Instant::now() < deadline, "{} is still answered {answer:?}", tenant.slug);
    }
}

/// One connection; none if the server had none left for a second.
async fn take(server: &Postgres) -> Option<DatabaseConnection> {
    let mut options = ConnectOptions::new(server.url());
    options.max_connections(1).sqlx_logging(false).acquire_timeout(Duration::from_secs(1));
    service::pool::open(options).await.ok()
}

/// An address whose queue of connections is full: the system neither accepts nor refuses more of them.
struct BlackHole {
    address: String,
    listener: TcpListener,
    waiting: Vec<TcpStream>,
}

impl BlackHole {
    async fn dig() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        // The first ones wait in the queue. The next one gets no answer.
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        Self { address: address.to_string(), listener, waiting }
    }

    /// From now on the address leads to a server.
    async fn mend(self, server: &str) -> Way {
        let Self { address, listener, waiting } = self;
        drop((listener, waiting));
        Way::on(&address, server).await
    }
}
