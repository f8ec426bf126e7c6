//! Fewer tenants than connections: what it costs that each has a database of its own.

use std::collections::BTreeMap;

use super::crowd::{Asked, Pace, ask};
use super::plain::{Plain, Pools};
use super::trace::{Popularity, trace};
use super::{CLIENTS, Stage};
use crate::report::{Report, Target};

/// As many tenants as there are here, with no more than these each, fit into the budget.
const POOL: u32 = 3;
/// The aim for the throughput, as a ratio to that of one database with one pool.
const ONE_DATABASE: f64 = 0.85;

pub(super) async fn measure(report: &mut Report, stage: &Stage) {
    let urls = &stage.town.urls;
    let case = format!("{} tenants, uniform, room for all", urls.len());
    let trace = trace(Popularity::Uniform, urls.len(), 400_000, 18);
    let pools = Plain::start(urls, Pools { connections: POOL, idle: None });
    // One database and one pool: what no product of many tenants has.
    let one = Plain::start(&urls[..1], Pools { connections: 32, idle: None });
    let alone = vec![0; 1_000];
    let (mut ours, mut each, mut single) = (Vec::new(), Vec::new(), Vec::new());
    let (mut p99, mut each_p99) = (Vec::new(), Vec::new());
    let mut unserved = 0;
    for round in 1..=stage.rounds() {
        let load =
            async |asked: Asked, trace: &[usize]| ask(&asked, trace, Pace::Clients(CLIENTS), stage.times()).await;
        let told = load(stage.town.asked(), &trace).await;
        unserved += told.busy + told.failures();
        ours.push(told.throughput);
        p99.push(told.p99());
        let told = load(pools.asked(urls.len()), &trace).await;
        assert_eq!(told.failed, BTreeMap::new(), "a baseline that fails is none");
        each.push(told.throughput);
        each_p99.push(told.p99());
        let told = load(one.asked(1), &alone).await;
        assert_eq!(told.failed, BTreeMap::new(), "a baseline that fails is none");
        single.push(told.throughput);
        let last = |figures: &[f64]| figures.last().copied().unwrap_or(f64::NAN);
        eprintln!(
            "{case}: round {round}: {:.0} requests/s, a pool each {:.0}, one database {:.0}",
            last(&ours),
            last(&each),
            last(&single)
        );
    }
    report.in_rounds(&case, ("a pool each", "requests/s"), &ours, &each, Target::AtLeast(0.9));
    report.in_rounds(&case, ("one database", "requests/s"), &ours, &single, Target::AimAtLeast(ONE_DATABASE));
    report.in_rounds(&case, ("p99, pools", "ms"), &p99, &each_p99, Target::None);
    #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
    report.at_most(&case, ("not served", "requests"), unserved as f64, Some(0.0));
}
