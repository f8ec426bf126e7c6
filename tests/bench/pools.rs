//! Many tenants within few connections: how the data planes share one server's connections among more tenants than there are,
//! against plain pools, PgBouncer, and bare connections that see the future.
//!
//! All of it runs on one Postgres of the bench's own, round by round in turn. The server is looked at all the time: more
//! connections than the budget at any look fail the bench.

mod cold;
mod crowd;
mod crowded;
mod files;
mod neighbours;
mod plain;
mod replay;
mod roomy;
mod storm;
pub(crate) mod town;
mod trace;
mod watch;

use std::time::Duration;

use crate::Effort;
use crate::report::Report;
use replay::Times;
use town::Town;
use trace::Popularity;
use watch::Watch;

/// Connections that all data planes together may have where tenants outnumber them.
pub(crate) const FEW: u32 = 90;
/// And where they do not.
const MANY: u32 = 380;
const CLIENTS: usize = 256;

/// What may be measured by itself, in the order in which it is.
pub(crate) const PARTS: [&str; 8] = ["roomy", "cold", "neighbours", "storm", "zipf", "uniform", "nodes", "files"];

/// What stands for one bench.
struct Stage {
    // Before the town, so that it is dropped first: it needs the town's server.
    watch: Watch,
    town: Town,
    effort: Effort,
}

impl Stage {
    fn rounds(&self) -> u32 {
        rounds(self.effort)
    }

    fn times(&self) -> Times {
        times(self.effort)
    }

    /// Says what was seen of the budget since the last time.
    async fn tell_budget(&self, report: &mut Report, case: &str, budget: u32) {
        let shown = self.town.bed.done("GET", "/v1/servers/town", None).await;
        // Connections that were closed here and may still be there.
        let closing = shown["connections"]["reserve_closing"].as_f64().unwrap();
        let (most, looks) = self.watch.take_most();
        eprintln!(
            "{case}: at most {most} connections of {budget}, and {closing} that may be closing, in {looks} looks"
        );
        report.at_most(case, ("connections", "at most"), f64::from(most), Some(f64::from(budget) + closing));
    }
}

fn rounds(effort: Effort) -> u32 {
    effort.either(5, 1)
}

fn times(effort: Effort) -> Times {
    let seconds = |whole, quick| Duration::from_secs(effort.either(whole, quick));
    Times { warming: seconds(4, 3), measured: seconds(8, 5) }
}

/// All parts, or the one that is wanted.
pub(crate) async fn measure(effort: Effort, only: Option<&str>) -> Report {
    let mut report = Report::new(&only.map_or_else(|| "pools".to_owned(), |part| format!("pools-{part}")));
    let is_wanted = |part: &str| only.is_none_or(|only| only == part);
    if only != Some("files") {
        in_town(&mut report, effort, &is_wanted).await;
    }
    if only == Some("cold") {
        files::measure_cold(&mut report, effort).await;
    }
    if is_wanted("files") {
        files::measure(&mut report, effort).await;
    }
    report
}

/// What is measured on Postgres.
async fn in_town(report: &mut Report, effort: Effort, is_wanted: &impl Fn(&str) -> bool) {
    plain::require_bouncer();
    let town = Town::build(100, 1, MANY).await;
    let mut stage = Stage { watch: Watch::start(&town.server), town, effort };
    if is_wanted("roomy") {
        roomy::measure(report, &stage).await;
    }
    if is_wanted("cold") {
        cold::measure(report, &mut stage).await;
    }
    if is_wanted("neighbours") {
        neighbours::measure(report, &stage, MANY).await;
    }
    stage.tell_budget(report, "a budget with room", MANY).await;
    if !["neighbours", "storm", "zipf", "uniform", "nodes"].into_iter().any(is_wanted) {
        return;
    }
    stage.town.grow(effort.either(1_000, 300)).await;
    stage.town.set_budget(FEW).await;
    // Until the data plane has closed what it must give up, it may have as many as before.
    stage.tell_budget(report, "while the budget shrinks", MANY).await;
    if is_wanted("neighbours") {
        neighbours::measure(report, &stage, FEW).await;
    }
    if is_wanted("storm") {
        storm::measure(report, effort, &stage.town.asked(), "Postgres").await;
    }
    if is_wanted("zipf") {
        crowded::measure(report, &mut stage, Popularity::Zipf).await;
    }
    if is_wanted("uniform") {
        crowded::measure(report, &mut stage, Popularity::Uniform).await;
    }
    if is_wanted("nodes") {
        stage.town.add_nodes(2);
        stage.town.until_dealt(FEW).await;
        crowded::measure(report, &mut stage, Popularity::Zipf).await;
    }
    stage.tell_budget(report, "a budget without room", FEW).await;
}
