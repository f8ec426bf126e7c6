//! What routing costs: the pet list of one hot tenant of many through a data plane against the same list without tenants, on one
//! Postgres. There are more tenants than connections, and the cold ones are touched while anything is timed.

mod cold;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use end_to_end::bed::{Bed, Tenant, send};
use end_to_end::process::folder;
use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::json;

use crate::Effort;
use crate::instructions::Counting;
use crate::load::{Call, Measured};
use crate::pools::FEW;
use crate::pools::town::Town;
use crate::report::{Report, Target, quantile};
use cold::Cold;

const CONNECTIONS: usize = 32;
const PLAIN: &str = "plain-pets";
const DATA_PLANE: &str = "petstore-data-plane";
/// All tenants, the hot one included: more than the data plane may have connections for, [`FEW`].
const TENANTS: usize = 300;
const FEWER_TENANTS: usize = 120;
const ONE: &str = "list of 1 pet, 32 connections";
const TWENTY: &str = "a page of 20 pets, 32 connections";
/// The aims, as ratios to the plain service: at least this throughput, at most this processor time for a request.
const THROUGHPUT: f64 = 0.95;
const CPU: f64 = 1.08;

/// The yardstick, a process of its own like the data plane. Inside of the house's edge it tells what of the difference is
/// tenancy.
struct Plain {
    child: Child,
    url: String,
}

impl Plain {
    fn start(database: &str, connections: u64, has_edge: bool) -> Self {
        Self::start_by(Command::new(folder().join(PLAIN)), database, connections, has_edge)
    }

    /// As [`Plain::start`], by this command.
    fn start_by(mut command: Command, database: &str, connections: u64, has_edge: bool) -> Self {
        let mut urls = tempfile::NamedTempFile::new().unwrap();
        writeln!(urls, "{database}").unwrap();
        command.env("PLAIN_PETS_URLS", urls.path()).env("PLAIN_PETS_CONNECTIONS", connections.to_string());
        if has_edge {
            command.env("PLAIN_PETS_EDGE", "yes");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The URL of a role that may do what the tenant's own may, with the same settings: a time limit for each statement costs
/// the server something too.
async fn role_like(town: &Town, tenant: &Tenant) -> String {
    let (name, _) = town.bed.registry_row(tenant).await;
    let db = town.server.look(&name).await;
    let role = format!("plain_{}", uuid::Uuid::new_v4().simple());
    db.execute_unprepared(&format!("CREATE ROLE {role} LOGIN PASSWORD '{role}' IN ROLE freehold_rw")).await.unwrap();
    db.execute_unprepared(&format!("GRANT CONNECT ON DATABASE \"{name}\" TO {role}")).await.unwrap();
    let settings = format!("SELECT unnest(rolconfig) FROM pg_roles WHERE rolname = '{name}_a'");
    let settings = db.query_all_raw(Statement::from_string(db.get_database_backend(), settings)).await.unwrap();
    assert!(!settings.is_empty(), "the tenant's role has settings");
    for setting in settings {
        let setting: String = setting.try_get_by_index(0).unwrap();
        let (key, value) = setting.split_once('=').unwrap();
        db.execute_unprepared(&format!("ALTER ROLE {role} SET {key} = '{value}'")).await.unwrap();
    }
    db.close().await.unwrap();
    format!("postgres://{role}:{role}@{}/{name}", town.server.place())
}

pub(crate) async fn measure(effort: Effort) -> Report {
    let tenants = effort.either(TENANTS, FEWER_TENANTS);
    let [one, twenty] = [ONE, TWENTY].map(|list| format!("one of {tenants} tenants, {list}"));
    let mut town = Town::build(tenants - 1, 1, FEW).await;
    let hot = town.bed.tenant_of("unlimited", Some("there"), "hot").await;
    let unlimited = town.bed.done("GET", "/v1/plans/unlimited", None).await;
    let (url, connections) = (role_like(&town, &hot).await, unlimited["connections"].as_u64().unwrap());
    // Beside its connections and the anchor there is room for cold tenants, and not for all of them.
    assert!(connections + 1 < u64::from(FEW), "the hot tenant could take all of the budget");
    let plain = [false, true].map(|has_edge| Plain::start(&url, connections, has_edge));
    let mut report = Report::new("route");
    town.until_dealt(FEW).await;
    // The harshest case: an answer so small that all that is around it shows.
    compare(&mut report, &one, &town, calls(&town.bed, 0, &hot, &plain), effort).await;
    let counting = Counting::new();
    let counted = counting.as_ref().map(|counting| {
        let by = |program: &str| counting.command(&folder().join(program));
        let control = town.bed.control[0].url.clone();
        town.bed.add_node_by(by(DATA_PLANE), DATA_PLANE, &control);
        let plain = [false, true].map(|has_edge| Plain::start_by(by(PLAIN), &url, connections, has_edge));
        (counting, plain)
    });
    // While instructions are counted, no cold tenant is touched.
    if let Some((counting, plain)) = &counted {
        town.bed.until_ready(1).await;
        // The first node gives up connections, and the second one gets its share.
        town.until_dealt(FEW).await;
        town.bed.until(&hot, "/api/pets", 200).await;
        count(&mut report, &one, calls(&town.bed, 1, &hot, plain), counting).await;
    }
    for number in 1..20 {
        let pet = json!({ "name": format!("Pet {number}"), "species": "cat", "breed": "Siamese" });
        let made = send(town.bed.request(0, "POST", "/api/pets").bearer_auth(&hot.key).json(&pet)).await;
        assert_eq!(made.status, 201, "{made:?}");
    }
    if let Some((counting, plain)) = &counted {
        count(&mut report, &twenty, calls(&town.bed, 1, &hot, plain), counting).await;
    }
    // Programs under callgrind are stopped before anything is timed. The node ends by itself, so that its share is dealt soon.
    drop(counted);
    for mut node in town.bed.data.drain(1..) {
        node.stop();
    }
    town.until_dealt(FEW).await;
    compare(&mut report, &twenty, &town, calls(&town.bed, 0, &hot, &plain), effort).await;
    report
}

/// The same call to a node, to the plain service, and to the plain service in the house's edge.
fn calls(bed: &Bed, node: usize, tenant: &Tenant, plain: &[Plain; 2]) -> [Call; 3] {
    let call =
        |url: &str, process| Call { url: url.to_owned(), path: "/api/pets".to_owned(), credential: None, process };
    let through = call(&bed.data[node].url, bed.data[node].id());
    let [bare, edged] = plain.each_ref().map(|plain| call(&plain.url, plain.child.id()));
    [Call { credential: Some(tenant.key.clone()), ..through }, bare, edged]
}

async fn count(report: &mut Report, case: &str, calls: [Call; 3], counting: &Counting) {
    let mut counted = Vec::new();
    for call in &calls {
        counted.push(counting.of(call).await);
    }
    let metric = ("instructions", "/request");
    report.compared(case, metric, counted[0], counted[1], None);
    report.compared(&in_the_edge(case), metric, counted[0], counted[2], None);
}

fn in_the_edge(case: &str) -> String {
    format!("{case}, both in the edge")
}

async fn compare(report: &mut Report, case: &str, town: &Town, calls: [Call; 3], effort: Effort) {
    let [through, plain, edged] = &calls;
    assert_eq!(through.once().await, plain.once().await, "all answer the same");
    assert_eq!(through.once().await, edged.once().await, "all answer the same");
    let time = Duration::from_secs(effort.either(5, 1));
    // Beside all three services alike: they share the machine.
    let cold = Cold::touched(&town.bed, &town.tenants).await;
    for call in &calls {
        cold.beside(call.load(CONNECTIONS, Duration::from_secs(effort.either(3, 1)))).await;
    }
    let mut rounds: [Vec<Measured>; 3] = Default::default();
    for round in 0..effort.either(5, 3) {
        // Interleaved, each first in its turn: the machine's moods meet all.
        for turn in 0..3 {
            let at = (round + turn) % 3;
            rounds[at].push(cold.beside(calls[at].load(CONNECTIONS, time)).await);
        }
        let of = |at: usize| rounds[at].last().map_or(0.0, |measured| measured.throughput);
        eprintln!(
            "{case}: round {}: {:.0} requests/s, plain {:.0}, with the edge {:.0}",
            round + 1,
            of(0),
            of(1),
            of(2)
        );
    }
    let figures = |at: usize, figure: &dyn Fn(&Measured) -> f64| rounds[at].iter().map(figure).collect::<Vec<f64>>();
    let throughput = |at| figures(at, &|measured| measured.throughput);
    let cpu = |at| figures(at, &|measured| measured.cpu);
    let targets = (Target::AtLeast(THROUGHPUT), Target::AtMost(CPU));
    // The second baseline has the edge of any service of the house. What is left is the cost of tenancy.
    for (case, baseline, targets) in [(case, 1, targets), (&in_the_edge(case), 2, (Target::None, Target::None))] {
        report.in_rounds(case, ("throughput", "requests/s"), &throughput(0), &throughput(baseline), targets.0);
        report.in_rounds(case, ("server CPU", "us/request"), &cpu(0), &cpu(baseline), targets.1);
    }
    for (metric, part) in [("latency p50", 0.5), ("latency p99", 0.99)] {
        let latency = |at| figures(at, &|measured| quantile(&measured.latencies, part));
        report.in_rounds(case, (metric, "ms"), &latency(0), &latency(1), Target::None);
    }
    let (touches, refused) = cold.counts();
    report.at_most(case, ("cold touches", "requests"), f64::from(touches), None);
    report.at_most(case, ("refused touches", "requests"), f64::from(refused), None);
}
