//! Thousands of tenants on SQLite: what one open file costs, and what it costs that there are many.

use std::time::{Duration, Instant};

use end_to_end::bed::{Bed, Store, Tenant, Tuning};
use futures_util::{StreamExt as _, stream};
use serde_json::json;

use super::crowd::{Asked, Pace, ask};
use super::replay::Times;
use super::town::{bearer, plans};
use super::trace::{Popularity, trace};
use super::{CLIENTS, cold, rounds, storm, times};
use crate::Effort;
use crate::report::{Report, Target};

const MEGABYTE: f64 = 1_024.0 * 1_024.0;
/// By then the reaper has seen that they are idle.
const REAPED: Duration = Duration::from_secs(5);
/// What is idle is closed soon, so that it is seen what that leaves.
const DATA: &str = "[pools]\nidle_seconds = 20\n\n[strangers]\nper_second = 100000\nburst = 1000000\n";

/// The first request of a cold tenant alone.
pub(super) async fn measure_cold(report: &mut Report, effort: Effort) {
    let (mut bed, mut tenants) = (start().await, Vec::new());
    grow(&bed, &mut tenants, 300).await;
    cold::measure_files(report, effort, &mut bed, &tenants).await;
}

async fn start() -> Bed {
    let bed = Bed::start_with(Store::Sqlite, 1, 1, Tuning { data: DATA, ..Tuning::DEFAULT }).await;
    plans(&bed).await;
    // A bed's server takes no more than 1,000 tenants.
    bed.done("PATCH", "/v1/servers/local", Some(json!({ "capacity": 20_000 }))).await;
    bed
}

pub(super) async fn measure(report: &mut Report, effort: Effort) {
    let (open, known) = (effort.either(1_000, 300), effort.either(10_000, 1_000));
    let (mut bed, mut tenants) = (start().await, Vec::new());
    grow(&bed, &mut tenants, open).await;
    let asked = ask_for(&bed, &tenants);
    memory(report, &bed, &asked).await;
    cold::measure_files(report, effort, &mut bed, &tenants).await;
    throughput(report, effort, &asked).await;
    grow(&bed, &mut tenants, known).await;
    let asked = ask_for(&bed, &tenants);
    let storming = Asked { headers: asked.headers[..known / 2].to_vec(), ..asked.clone() };
    storm::measure(report, effort, &storming, "SQLite").await;
    touch(&asked).await;
    let megabytes = pss(&bed);
    let case = format!("{known} tenants on SQLite known to one data plane");
    report.at_most(&case, ("memory", "MB"), megabytes, Some(1_536.0));
    report.at_most(&case, ("open", "tenants"), connections(&bed).await, None);
}

/// More tenants, until there are so many.
async fn grow(bed: &Bed, tenants: &mut Vec<Tenant>, wanted: usize) {
    let made = stream::iter(tenants.len()..wanted).map(async |number| {
        if number % 1_000 == 999 {
            eprintln!("{} tenants on SQLite", number + 1);
        }
        bed.tenant_of("crowd", None, &format!("file-{number}")).await
    });
    tenants.extend(made.buffered(8).collect::<Vec<_>>().await);
}

/// What the data plane is asked for these tenants. It is at the same place after a restart.
pub(super) fn ask_for(bed: &Bed, tenants: &[Tenant]) -> Asked {
    Asked { nodes: vec![bed.data[0].url.clone()], headers: tenants.iter().map(bearer).collect() }
}

/// One request of each tenant, one after the other.
async fn touch(asked: &Asked) {
    let every: Vec<usize> = (0..asked.headers.len()).collect();
    let times = Times { warming: Duration::ZERO, measured: Duration::from_mins(5) };
    let told = ask(asked, &every, Pace::Once, times).await;
    assert_eq!(told.latencies.len(), every.len(), "{:?}, {} busy", told.failed, told.busy);
}

async fn memory(report: &mut Report, bed: &Bed, asked: &Asked) {
    until_closed(bed).await;
    let before = pss(bed);
    touch(asked).await;
    // They are idle, and not for so long that they are closed.
    tokio::time::sleep(REAPED).await;
    let (open, after) = (connections(bed).await, pss(bed));
    let case = format!("{open} open tenants on SQLite");
    report.at_most(&case, ("memory", "MB"), after, Some(200.0));
    let kilobytes = (after - before) / open * 1_024.0;
    report.at_most(&case, ("each", "KiB"), kilobytes, Some(128.0));
    report.at_most(&case, ("threads", "in all"), status(bed, "Threads:"), None);
    #[allow(clippy::cast_precision_loss, reason = "a count of descriptors")]
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", bed.data[0].id())).unwrap().count() as f64;
    report.at_most(&case, ("descriptors", "in all"), descriptors, None);
    until_closed(bed).await;
    report.at_most("none of them open any more", ("memory", "MB"), pss(bed), None);
}

async fn throughput(report: &mut Report, effort: Effort, asked: &Asked) {
    let every = trace(Popularity::Uniform, asked.headers.len(), 400_000, 18);
    let (mut all, mut one) = (Vec::new(), Vec::new());
    let case = format!("{} tenants on SQLite, uniform, against one", asked.headers.len());
    for round in 1..=rounds(effort) {
        for (trace, rates) in [(&every[..], &mut all), (&[0], &mut one)] {
            let told = ask(asked, trace, Pace::Clients(CLIENTS), times(effort)).await;
            assert!(told.failed.is_empty(), "{:?}", told.failed);
            rates.push(told.throughput);
        }
        eprintln!("{case}: round {round}: {:.0} and {:.0} requests/s", all[all.len() - 1], one[one.len() - 1]);
    }
    report.in_rounds(&case, ("throughput", "requests/s"), &all, &one, Target::AtLeast(0.9));
}

async fn connections(bed: &Bed) -> f64 {
    bed.metric(0, "db_client_connection_count").await
}

/// Until the reaper has closed all.
async fn until_closed(bed: &Bed) {
    let deadline = Instant::now() + Duration::from_mins(1);
    while connections(bed).await > 0.0 {
        assert!(Instant::now() < deadline, "idle connections are not closed");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The memory that is the data plane's alone, and its part of what it shares, in MB (proc(5), `smaps_rollup`).
fn pss(bed: &Bed) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", bed.data[0].id())).unwrap();
    field(&rollup, "Pss:") * 1_024.0 / MEGABYTE
}

fn status(bed: &Bed, name: &str) -> f64 {
    field(&std::fs::read_to_string(format!("/proc/{}/status", bed.data[0].id())).unwrap(), name)
}

fn field(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
