//! More tenants than connections: throughput and waiting against bare connections that see the future, and against what
//! others do.

use std::time::Duration;

use super::crowd::{Asked, Pace, Told, ask};
use super::plain::{Bouncer, Plain, Pools};
use super::replay::{Times, limiter, replay};
use super::town::CONTROL;
use super::trace::{Policy, Popularity, Step, deal, opens, trace};
use super::{CLIENTS, FEW, Stage};
use crate::report::{Report, Target};

/// Connections that each plain pool may have.
const POOL: u32 = 4;
/// Connections that all nodes together may open in a second: what a server allows by default.
const CONNECT_RATE: u32 = 200;
/// Longer than any load comes to.
const REQUESTS: usize = 400_000;
/// After which PgBouncer and the pools before it let go of a connection that nobody needs: the best of these is taken.
const IDLE: [Duration; 3] = [Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(3)];

/// What the rounds came to.
#[derive(Default)]
struct Rounds {
    ours: Vec<f64>,
    p99: Vec<f64>,
    belady: Vec<f64>,
    lru: Vec<f64>,
    opened: Vec<f64>,
    opened_by_lru: Vec<f64>,
    plain: Vec<f64>,
    plain_p99: Vec<f64>,
    /// The most connections that the plain pools had.
    plain_most: Vec<f64>,
    bouncer: Vec<f64>,
    bouncer_p99: Vec<f64>,
    /// The most connections that PgBouncer had.
    bouncer_most: Vec<f64>,
    busy: Vec<f64>,
    failures: usize,
}

/// A trace, as each node would deal it to its connections.
struct Dealt {
    belady: Vec<Vec<Vec<Step>>>,
    lru: Vec<Vec<Vec<Step>>>,
    requests: usize,
}

impl Dealt {
    fn of(trace: &[usize], nodes: usize) -> Self {
        let connections = FEW as usize / nodes;
        let parts: Vec<Vec<usize>> =
            (0..nodes).map(|node| trace.iter().copied().skip(node).step_by(nodes).collect()).collect();
        let all = |policy| parts.iter().map(|part| deal(part, connections, policy)).collect();
        Self { belady: all(Policy::Belady), lru: all(Policy::Lru), requests: trace.len().div_ceil(nodes) }
    }

    /// Connections that this policy opens for each request of this part of the whole trace.
    fn opens_by_lru(&self, part: &std::ops::Range<usize>) -> f64 {
        let nodes = self.lru.len();
        let part = part.start / nodes..part.end / nodes;
        let opened: usize = self.lru.iter().map(|steps| opens(steps, part.clone())).sum();
        #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
        let opened = opened as f64 / (part.len() * nodes) as f64;
        opened
    }
}

async fn replay_all(urls: &[String], nodes: &[Vec<Vec<Step>>], requests: usize, times: Times) -> f64 {
    let rate = limiter(CONNECT_RATE);
    let replays = nodes.iter().map(|steps| replay(urls, steps, requests, &rate, times));
    futures_util::future::join_all(replays).await.into_iter().sum()
}

pub(super) async fn measure(report: &mut Report, stage: &mut Stage, popularity: Popularity) {
    let (tenants, nodes) = (stage.town.tenants.len(), stage.town.bed.data.len());
    let how = if popularity == Popularity::Zipf { "Zipf 1.0" } else { "uniform" };
    let many = if nodes == 1 { "1 data plane".to_owned() } else { format!("{nodes} data planes") };
    let case = format!("{tenants} tenants, {how}, {FEW} connections, {many}");
    let trace = trace(popularity, tenants, REQUESTS, 18);
    let dealt = Dealt::of(&trace, nodes);
    let mut rounds = Rounds::default();
    let mut idle = None;
    for round in 1..=stage.rounds() {
        ours(stage, &trace, &dealt, &mut rounds).await;
        let (urls, times) = (&stage.town.urls, stage.times());
        rounds.belady.push(replay_all(urls, &dealt.belady, dealt.requests, times).await);
        rounds.lru.push(replay_all(urls, &dealt.lru, dealt.requests, times).await);
        others(stage, &trace, &mut rounds, &mut idle).await;
        let last = |figures: &[f64]| figures.last().copied().unwrap_or(f64::NAN);
        eprintln!(
            "{case}: round {round}: {:.0} requests/s (p99 {:.0} ms, {:.3} opened a request), Belady {:.0}, LRU {:.0} ({:.3}), a pool each \
             {:.0} ({:.0} ms, at most {:.0} connections), PgBouncer {:.0} ({:.0} ms, at most {:.0} connections)",
            last(&rounds.ours),
            last(&rounds.p99),
            last(&rounds.opened),
            last(&rounds.belady),
            last(&rounds.lru),
            last(&rounds.opened_by_lru),
            last(&rounds.plain),
            last(&rounds.plain_p99),
            last(&rounds.plain_most),
            last(&rounds.bouncer),
            last(&rounds.bouncer_p99),
            last(&rounds.bouncer_most),
        );
    }
    tell(report, &case, popularity, &rounds);
    if popularity == Popularity::Uniform {
        minute(report, stage, &case, &trace).await;
    }
}

async fn ours(stage: &Stage, trace: &[usize], dealt: &Dealt, rounds: &mut Rounds) {
    let bed = &stage.town.bed;
    let opened = async || {
        let mut opened = 0.0;
        for node in 0..bed.data.len() {
            opened += bed.metric(node, "data_plane_connection_opens_total").await;
        }
        opened
    };
    let times = stage.times();
    let warming = Times { warming: times.warming, measured: Duration::ZERO };
    let asked = stage.town.asked();
    // The warming apart, so that what is opened is counted for the measured part alone.
    let warmed = ask(&asked, trace, Pace::Clients(CLIENTS), warming).await;
    let begin = warmed.part.end % trace.len();
    let before = opened().await;
    let measured = Times { warming: Duration::ZERO, measured: times.measured };
    let told = ask(&asked, &trace[begin..], Pace::Clients(CLIENTS), measured).await;
    let opened = opened().await - before;
    let part = begin..begin + told.part.end;
    #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
    let requests = told.requests.max(1) as f64;
    rounds.ours.push(told.throughput);
    rounds.p99.push(told.p99());
    rounds.opened.push(opened / requests);
    rounds.opened_by_lru.push(dealt.opens_by_lru(&part));
    #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
    rounds.busy.push(told.busy as f64 / requests * 100.0);
    rounds.failures += told.failures();
    complain(&told);
}

fn complain(told: &Told) {
    if !told.failed.is_empty() {
        eprintln!("failed: {:?}", told.failed);
    }
}

/// What others do within as many connections: while our data planes are stopped, the server has no more to give.
async fn others(stage: &mut Stage, trace: &[usize], rounds: &mut Rounds, idle: &mut Option<Duration>) {
    let times = stage.times();
    stage.town.bed.data.iter_mut().for_each(end_to_end::process::Process::stop);
    let fillers = stage.town.leave_only(FEW).await;
    // The bare connections of the replays were counted, too. The bench itself bounds those.
    let _ = stage.watch.take_others();
    let urls = &stage.town.urls;
    let load = async |asked: Asked| ask(&asked, trace, Pace::Clients(CLIENTS), times).await;
    let plain = Plain::start(urls, Pools { connections: POOL, idle: None });
    let told = load(plain.asked(urls.len())).await;
    drop(plain);
    rounds.plain.push(told.throughput);
    rounds.plain_p99.push(told.p99());
    rounds.plain_most.push(stage.watch.take_others().into());
    let through = async |idle: Duration| {
        let bouncer = Bouncer::start(urls, idle);
        let plain = Plain::start(&bouncer.through(urls), Pools { connections: POOL, idle: Some(idle) });
        load(plain.asked(urls.len())).await
    };
    let mut best: Option<Told> = None;
    for tried in idle.map_or_else(|| IDLE.to_vec(), |best| vec![best]) {
        let told = through(tried).await;
        if best.as_ref().is_none_or(|best| told.throughput > best.throughput) {
            (best, *idle) = (Some(told), Some(tried));
        }
    }
    let best = best.unwrap();
    rounds.bouncer.push(best.throughput);
    rounds.bouncer_p99.push(best.p99());
    rounds.bouncer_most.push(stage.watch.take_others().into());
    drop(fillers);
    stage.town.bed.data.iter_mut().for_each(end_to_end::process::Process::restart);
    stage.town.until_dealt(FEW).await;
}

fn tell(report: &mut Report, case: &str, popularity: Popularity, rounds: &Rounds) {
    let is_zipf = popularity == Popularity::Zipf;
    let throughput = |against| (against, "requests/s");
    let bound = Target::AtLeast(if is_zipf { 0.7 } else { 0.6 });
    report.in_rounds(case, throughput("by Belady"), &rounds.ours, &rounds.belady, bound);
    let lru = if is_zipf { Target::None } else { Target::AtLeast(0.85) };
    report.in_rounds(case, throughput("by LRU"), &rounds.ours, &rounds.lru, lru);
    let fewer = if is_zipf { Target::AtMost(1.0) } else { Target::None };
    report.in_rounds(case, ("opened, LRU", "a request"), &rounds.opened, &rounds.opened_by_lru, fewer);
    let (more, less) = if is_zipf { (Target::AtLeast(1.0), Target::AtMost(1.0)) } else { (Target::None, Target::None) };
    report.in_rounds(case, throughput("a pool each"), &rounds.ours, &rounds.plain, more);
    report.in_rounds(case, ("p99, pools", "ms"), &rounds.p99, &rounds.plain_p99, less);
    report.in_rounds(case, throughput("PgBouncer"), &rounds.ours, &rounds.bouncer, more);
    report.in_rounds(case, ("p99, bouncer", "ms"), &rounds.p99, &rounds.bouncer_p99, less);
    let others = rounds.plain_most.iter().chain(&rounds.bouncer_most).copied().fold(0.0, f64::max);
    report.at_most(case, ("others' connections", "at most"), others, Some(f64::from(FEW + CONTROL)));
    let most = if is_zipf { Target::None } else { Target::AtMost(1_000.0) };
    report.of_rounds(case, ("p99", "ms"), &rounds.p99, most);
    let busiest = rounds.busy.iter().copied().fold(0.0, f64::max);
    report.at_most(case, ("server-busy", "% at most"), busiest, Some(if is_zipf { 0.0 } else { 1.0 }));
    #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
    report.at_most(case, ("failed", "requests"), rounds.failures as f64, Some(0.0));
}

/// Nobody is left out for a minute.
async fn minute(report: &mut Report, stage: &Stage, case: &str, trace: &[usize]) {
    let times = Times { warming: Duration::ZERO, measured: Duration::from_mins(1) };
    let told = ask(&stage.town.asked(), trace, Pace::Clients(CLIENTS), times).await;
    complain(&told);
    let left_out = stage.town.tenants.len() - told.tenants;
    #[allow(clippy::cast_precision_loss, reason = "a count of tenants")]
    report.at_most(case, ("not served", "in a minute"), left_out as f64, Some(0.0));
}
