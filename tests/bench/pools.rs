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

pub(crate) async fn measure(effort: Effort) -> Report {
    plain::require_bouncer();
    let mut report = Report::new("pools");
    let tenants = effort.either(1_000, 300);
    let town = Town::build(100, 1, MANY).await;
    let mut stage = Stage { watch: Watch::start(&town.server), town, effort };
    roomy::measure(&mut report, &stage).await;
    cold::measure(&mut report, &mut stage).await;
    neighbours::measure(&mut report, &stage).await;
    stage.tell_budget(&mut report, "a budget with room", MANY).await;
    stage.town.grow(tenants).await;
    stage.town.set_budget(FEW).await;
    // Until the data plane has closed what it must give up, it may have as many as before.
    stage.tell_budget(&mut report, "while the budget shrinks", MANY).await;
    storm::measure(&mut report, effort, &stage.town.asked(), "Postgres").await;
    crowded::measure(&mut report, &mut stage, Popularity::Zipf).await;
    crowded::measure(&mut report, &mut stage, Popularity::Uniform).await;
    stage.town.add_nodes(2);
    stage.town.until_dealt(FEW).await;
    crowded::measure(&mut report, &mut stage, Popularity::Zipf).await;
    stage.tell_budget(&mut report, "a budget without room", FEW).await;
    drop(stage);
    files::measure(&mut report, effort).await;
    report
}
