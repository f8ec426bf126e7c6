//! The first request of a tenant that has no connection, while the machine has nothing else to do.

use std::collections::HashMap;
use std::str::FromStr as _;
use std::time::{Duration, Instant};

use end_to_end::bed::{Bed, Tenant, try_send};
use end_to_end::process::Process;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{ConnectOptions as _, Connection as _, query, query_scalar};
use tenancy::stamp;

use super::crowd::{Asked, Pace, ask};
use super::files::ask_for;
use super::replay::{LIST, Times, connect, list};
use super::{MANY, Stage, rounds};
use crate::Effort;
use crate::report::{Report, Target, median};

/// The target for our time, as a ratio to the time of the same work by hand.
const RATIO: f64 = 1.3;
/// The aims for our time, in milliseconds.
const ON_POSTGRES: f64 = 10.0;
const ON_SQLITE: f64 = 3.0;
/// Tenants on SQLite for which the data plane is asked in each round. As many are opened by hand.
const SAMPLE: usize = 100;
/// How long a statement of the data plane waits for SQLite's one writer.
const BUSY: Duration = Duration::from_secs(10);

pub(super) async fn measure(report: &mut Report, stage: &mut Stage) {
    let tenants = stage.town.tenants.len();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..stage.rounds() {
        // Nothing is open, and of the tenants nothing is known.
        stage.town.bed.data.iter_mut().for_each(Process::restart);
        stage.town.until_dealt(MANY).await;
        let asked = stage.town.asked();
        let (mut first, mut by_hand) = (Vec::new(), Vec::new());
        // The first ones were asked for already, to have the budget dealt.
        for tenant in 10..tenants {
            first.push(first_request(&asked, tenant).await);
            let begun = Instant::now();
            let mut connection = connect(&stage.town.urls[tenant]).await;
            let found: String = query_scalar(stamp::SELECT).fetch_one(&mut connection).await.unwrap();
            assert_eq!(found, stage.town.tenants[tenant].id);
            list(&mut connection).await;
            by_hand.push(milliseconds(begun));
            let _ = connection.close().await;
        }
        ours.push(median(&first));
        bare.push(median(&by_hand));
    }
    tell(report, "the first request of a cold tenant", &ours, &bare, ON_POSTGRES);
}

/// The same on SQLite: of a data plane that has no file open and has only just started.
pub(super) async fn measure_files(report: &mut Report, effort: Effort, bed: &mut Bed, tenants: &[Tenant]) {
    let urls: HashMap<String, String> = bed.open_urls_by_tenant().await.into_iter().collect();
    let asked = ask_for(bed, tenants);
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..rounds(effort) as usize {
        // The node closes its files before it ends. If it were killed, it would leave logs, and files with logs open slower.
        bed.data[0].stop();
        bed.data[0].restart();
        until_served(bed, &tenants[0]).await;
        let (mut first, mut by_hand) = (Vec::new(), Vec::new());
        // The data plane opens one of two neighbours, and the other is opened by hand: a file that is open already opens faster.
        // In the next round they change places.
        for (number, tenant) in tenants.iter().enumerate().skip(1).take(2 * SAMPLE) {
            if (number + round) % 2 == 1 {
                first.push(first_request(&asked, number).await);
            } else {
                by_hand.push(open_file(&urls[&tenant.id], &tenant.id).await);
            }
        }
        ours.push(median(&first));
        bare.push(median(&by_hand));
    }
    tell(report, "the first request of a cold tenant on SQLite", &ours, &bare, ON_SQLITE);
}

fn tell(report: &mut Report, case: &str, ours: &[f64], bare: &[f64], aim: f64) {
    report.in_rounds(case, ("p50", "ms"), ours, bare, Target::AtMost(RATIO));
    report.of_rounds(case, ("our p50", "ms"), ours, Target::AimAtMost(aim));
}

fn milliseconds(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1_000.0
}

/// The time in milliseconds in which the data plane answers one request for this tenant.
async fn first_request(asked: &Asked, tenant: usize) -> f64 {
    let once = Times { warming: Duration::ZERO, measured: Duration::from_secs(5) };
    let told = ask(asked, &[tenant], Pace::Once, once).await;
    assert_eq!(told.latencies.len(), 1, "not served: {:?}, {} busy", told.failed, told.busy);
    told.latencies[0]
}

/// The time in milliseconds in which a tenant's file is opened and its stamp and its pets are read. The options are those of the
/// data plane (`dial.rs`). Closing it is not timed, since the data plane leaves its file open.
async fn open_file(url: &str, id: &str) -> f64 {
    let begun = Instant::now();
    let options = SqliteConnectOptions::from_str(url)
        .unwrap()
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .busy_timeout(BUSY)
        .foreign_keys(true)
        .disable_statement_logging();
    let mut connection = options.connect().await.unwrap();
    let found: String = query_scalar(stamp::SELECT).fetch_one(&mut connection).await.unwrap();
    assert_eq!(found, id);
    let pets = query(LIST).bind(11_i64).fetch_all(&mut connection).await.unwrap();
    assert!(!pets.is_empty(), "each tenant has a pet");
    let took = milliseconds(begun);
    connection.close().await.unwrap();
    took
}

/// Until the node has heard its control plane and serves this tenant.
async fn until_served(bed: &Bed, tenant: &Tenant) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        // The first request may fail: the node that was stopped has closed this client's connection.
        let answer = try_send(bed.request(0, "GET", "/api/pets").bearer_auth(&tenant.key)).await;
        if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
            return;
        }
        assert!(Instant::now() < deadline, "the restarted node does not serve: {answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
