//! Sick servers and tenants in trouble: what 50 other tenants see of them while they are under load, which is nothing.
//!
//! The others have fewer connections than they are many. All faults are real: processes that are killed or frozen, a port
//! that answers nothing, connections that are all taken, rights and tables that change under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::{join, join_all};
use sea_orm::{ConnectionTrait as _, DatabaseConnection};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

use crate::bed::{Bed, PATIENCE, Store, Tenant, Tuning, send, try_send};
use crate::postgres::Postgres;

const OTHERS: usize = 50;
/// A request that takes this long waited for a server that does not answer. It is as long as a dial may take, see [`TUNING`]:
/// nothing else takes so long, even on a slow machine.
const HUNG: Duration = Duration::from_secs(8);
const TUNING: Tuning = Tuning { data: "[pools]\nwait_ms = 8000\ndial_ms = 8000\n", ..Tuning::DEFAULT };

/// Registers a server, and makes tenants there.
async fn tenants_on(bed: &Bed, name: &str, server: &Postgres, count: usize) -> Vec<Tenant> {
    bed.register(name, &server.url(), &Value::Null).await;
    bed.tenants_in(name, count).await
}

/// What requests came to.
#[derive(Debug, Default)]
struct Seen {
    requests: usize,
    failed: Vec<String>,
    longest: Duration,
}

impl Seen {
    fn assert_nothing(&self, during: &str) {
        assert_eq!(
            self.failed.first(),
            None,
            "{} of {} others failed while {during}",
            self.failed.len(),
            self.requests
        );
        assert!(self.longest < HUNG, "a request of another took {:?} while {during}", self.longest);
        assert!(self.requests >= OTHERS, "the others were asked only {} times while {during}", self.requests);
    }
}

/// So many clients ask for these tenants in turn, and all of them at least once, until all is over.
async fn ask(bed: &Bed, tenants: &[Tenant], clients: usize, is_over: &AtomicBool) -> Seen {
    let one = async |client: usize| {
        let mut seen = Seen::default();
        let turns = tenants.iter().cycle().skip(client * tenants.len() / clients);
        for (turn, tenant) in turns.enumerate() {
            if turn * clients >= tenants.len() && is_over.load(Ordering::Relaxed) {
                break;
            }
            let begun = Instant::now();
            let answer = try_send(bed.request(0, "GET", "/api/pets").bearer_auth(&tenant.key)).await;
            seen.requests += 1;
            seen.longest = seen.longest.max(begun.elapsed());
            match answer {
                Ok(answer) if answer.status == 200 => {}
                other => seen.failed.push(format!("{}: {other:?}", tenant.slug)),
            }
        }
        seen
    };
    let mut all = Seen::default();
    for seen in join_all((0..clients).map(one)).await {
        all.requests += seen.requests;
        all.longest = all.longest.max(seen.longest);
        all.failed.extend(seen.failed);
    }
    all
}

/// The others under load, and those in trouble too, while this goes on; what the others saw.
async fn beside(bed: &Bed, others: &[Tenant], troubled: &[Tenant], fault: impl Future<Output = ()>) -> Seen {
    let is_over = AtomicBool::new(false);
    let fault = async {
        fault.await;
        is_over.store(true, Ordering::Relaxed);
    };
    let load = join(ask(bed, others, 8, &is_over), ask(bed, troubled, 8, &is_over));
    let ((seen, _), ()) = join(load, fault).await;
    seen
}

/// Until a tenant in trouble is answered so.
async fn until(bed: &Bed, tenant: &Tenant, statuses: &[u16]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = bed.get(0, tenant, "/api/pets").await;
        if statuses.contains(&answer.status) {
            return;
        }
        assert!(Instant::now() < deadline, "{} is still answered {answer:?}", tenant.slug);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sick_server_harms_no_tenant_of_another() {
    let (well, mut sick) =
        (Postgres::start_with(&["max_connections=60"]), Postgres::start_with(&["max_connections=60"]));
    let bed = Bed::start_with(Store::Sqlite, 1, 1, TUNING).await;
    let others = tenants_on(&bed, "well", &well, OTHERS).await;
    let troubled = tenants_on(&bed, "sick", &sick, 6).await;
    // One of them is behind a port where nobody takes a connection any more.
    let hole = BlackHole::dig().await;
    bed.point_to(&troubled[5], &hole.address).await;
    let (lost, troubled) = troubled.split_last().unwrap();
    for tenant in others.iter().chain(troubled) {
        until(&bed, tenant, &[200]).await;
    }

    let seen = beside(&bed, &others, std::slice::from_ref(lost), until(&bed, lost, &[503])).await;
    seen.assert_nothing("a server's port was a black hole");
    drop(hole);

    sick.stop();
    let seen = beside(&bed, &others, troubled, until(&bed, &troubled[0], &[503])).await;
    seen.assert_nothing("a server was stopped");
    sick.restart();
    let seen = beside(&bed, &others, troubled, join_until(&bed, troubled, 200)).await;
    seen.assert_nothing("a server came back");

    sick.freeze();
    let seen = beside(&bed, &others, troubled, join_until(&bed, troubled, 503)).await;
    seen.assert_nothing("a server was frozen");
    sick.thaw();
    join_until(&bed, troubled, 200).await;

    let held = fill(&sick).await;
    let ended =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'freehold-data-plane%'";
    held[0].execute_unprepared(ended).await.unwrap();
    let full = async {
        // What was ended is taken by others at once.
        let more = Box::pin(fill(&sick)).await;
        until(&bed, &troubled[0], &[503]).await;
        drop(more);
    };
    let seen = beside(&bed, &others, troubled, full).await;
    seen.assert_nothing("a server was full");
    drop(held);
    join_until(&bed, troubled, 200).await;

    let root = sick.look("postgres").await;
    let post = async |tenant: &Tenant| {
        let pet = json!({ "name": "Rex", "species": "dog" });
        send(bed.request(0, "POST", "/api/pets").bearer_auth(&tenant.key).json(&pet)).await.status
    };
    let demoted = async {
        root.execute_unprepared("ALTER SYSTEM SET default_transaction_read_only = on").await.unwrap();
        root.execute_unprepared("SELECT pg_reload_conf()").await.unwrap();
        while post(&troubled[0]).await != 503 {}
        root.execute_unprepared("SET default_transaction_read_only = off").await.unwrap();
        root.execute_unprepared("ALTER SYSTEM RESET default_transaction_read_only").await.unwrap();
        root.execute_unprepared("SELECT pg_reload_conf()").await.unwrap();
        while post(&troubled[0]).await != 201 {}
    };
    let demoted = async { tokio::time::timeout(PATIENCE, demoted).await.expect("it stays as it was") };
    let seen = beside(&bed, &others, troubled, demoted).await;
    seen.assert_nothing("a server took no writes, and then took them again");
    assert_told_once(&bed.data[0].log());
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

async fn join_until(bed: &Bed, tenants: &[Tenant], status: u16) {
    join_all(tenants.iter().map(|tenant| until(bed, tenant, std::slice::from_ref(&status)))).await;
}

/// Takes all connections that a server has left.
async fn fill(server: &Postgres) -> Vec<DatabaseConnection> {
    let mut held = Vec::new();
    loop {
        let mut options = sea_orm::ConnectOptions::new(server.url());
        options.max_connections(1).sqlx_logging(false).acquire_timeout(Duration::from_secs(1));
        match service::pool::open(options).await {
            Ok(one) => held.push(one),
            Err(_) => return held,
        }
    }
}

/// A port whose queue of connections is full, so that nothing that knocks there hears anything.
struct BlackHole {
    address: String,
    _listener: tokio::net::TcpListener,
    _waiting: Vec<TcpStream>,
}

impl BlackHole {
    async fn dig() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        // Whoever knocks first waits to be let in, and the others not even that.
        while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        Self { address: address.to_string(), _listener: listener, _waiting: waiting }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_in_trouble_harms_no_neighbour_on_its_server() {
    let server = Postgres::start_with(&["max_connections=60"]);
    let bed = Bed::start_with(Store::Sqlite, 1, 1, TUNING).await;
    let tenants = tenants_on(&bed, "shared", &server, OTHERS + 3).await;
    let (troubled, others) = tenants.split_at(3);
    for tenant in &tenants {
        until(&bed, tenant, &[200]).await;
    }
    let mut names = Vec::new();
    for tenant in troubled {
        names.push(bed.registry_row(tenant).await.0);
    }
    let root = server.look("postgres").await;
    let end = async |name: &str| {
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        root.execute_unprepared(&end).await.unwrap();
    };

    let owner = server.look(&names[0]).await;
    let changed = async {
        for size in [200, 300, 400] {
            let change = format!("ALTER TABLE pets ALTER COLUMN breed TYPE varchar({size})");
            owner.execute_unprepared(&change).await.unwrap();
            for _ in 0..20 {
                let answer = bed.get(0, &troubled[0], "/api/pets").await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        }
    };
    let seen = beside(&bed, others, &troubled[..1], changed).await;
    seen.assert_nothing("a column's type was changed");

    let password = async {
        root.execute_unprepared(&format!("ALTER ROLE \"{}_a\" PASSWORD 'another'", names[1])).await.unwrap();
        end(&names[1]).await;
        until(&bed, &troubled[1], &[503]).await;
    };
    let seen = beside(&bed, others, &troubled[1..2], password).await;
    seen.assert_nothing("a role's password was changed");

    let dropped = async {
        root.execute_unprepared(&format!("DROP DATABASE \"{}\" WITH (FORCE)", names[2])).await.unwrap();
        until(&bed, &troubled[2], &[503]).await;
    };
    let seen = beside(&bed, others, &troubled[2..], dropped).await;
    seen.assert_nothing("a database was dropped");
}
