//! What tenants see of one that is in trouble, or makes it: one far beyond its limit, one with slow statements, one whose table
//! is locked.

use sea_orm::ConnectionTrait as _;

use super::crowd::{Asked, Pace, Told, ask};
use super::replay::Times;
use super::town::bearer;
use super::trace::{Popularity, trace};
use super::{CLIENTS, Stage};
use crate::report::{Report, Target};

/// Tenants whose requests are timed.
pub(super) const HOT: usize = 50;
/// Requests in a second of a tenant whose plan allows a hundredth of that.
const GREED: f64 = 1_000.0;
/// Of whoever waits for slow statements, or for a lock.
const STUBBORN: usize = 20;

#[derive(Clone, Copy, Debug)]
enum Trouble {
    Greedy,
    Slow,
    Locked,
}

impl Trouble {
    const fn case(self) -> &'static str {
        match self {
            Self::Greedy => "a tenant at 100 times its limit",
            Self::Slow => "a tenant with slow statements",
            Self::Locked => "a tenant whose table is locked",
        }
    }

    const fn pace(self) -> Pace {
        match self {
            Self::Greedy => Pace::Rate(GREED),
            Self::Slow | Self::Locked => Pace::Clients(STUBBORN),
        }
    }
}

/// The hottest tenants alone, and half the requests in a second that the data planes can answer for them.
pub(super) async fn calm_load(times: Times, asked: &Asked) -> (Asked, Vec<usize>, Pace) {
    let hot = Asked { headers: asked.headers[..HOT].to_vec(), ..asked.clone() };
    let trace = trace(Popularity::Uniform, HOT, 400_000, 18);
    let saturated = ask(&hot, &trace, Pace::Clients(CLIENTS), times).await;
    let rate = saturated.throughput / 2.0;
    eprintln!("{HOT} hot tenants: {:.0} requests/s at most; half of that from now on", saturated.throughput);
    (hot, trace, Pace::Rate(rate))
}

/// With so many connections for all. Of few there is one for each tenant that is timed, and the others are wanted by all.
pub(super) async fn measure(report: &mut Report, stage: &Stage, budget: u32) {
    let (hot, trace, pace) = calm_load(stage.times(), &stage.town.asked()).await;
    for trouble in [Trouble::Greedy, Trouble::Slow, Trouble::Locked] {
        let plan = if matches!(trouble, Trouble::Greedy) { "bounded" } else { "crowd" };
        let slug = format!("{trouble:?}-{budget}").to_lowercase();
        let case = format!("{}, budget {budget}", trouble.case());
        let tenant = stage.town.bed.tenant_of(plan, Some("there"), &slug).await;
        let troubled = Asked { headers: vec![bearer(&tenant)], ..hot.clone() };
        let (name, _) = stage.town.bed.registry_row(&tenant).await;
        let database = stage.town.server.look(&name).await;
        if matches!(trouble, Trouble::Slow) {
            let slow = "ALTER TABLE pets RENAME TO kept; \
                        CREATE VIEW pets AS SELECT kept.* FROM kept, pg_sleep(0.5); GRANT SELECT ON pets TO PUBLIC";
            database.execute_unprepared(slow).await.unwrap();
        }
        let (mut calm, mut beside, mut failed) = (Vec::new(), Vec::new(), 0);
        for round in 1..=stage.rounds() {
            let told = ask(&hot, &trace, pace, stage.times()).await;
            calm.push(told.p99());
            let lock = sea_orm::TransactionTrait::begin(&database).await.unwrap();
            if matches!(trouble, Trouble::Locked) {
                lock.execute_unprepared("LOCK TABLE pets").await.unwrap();
            }
            let (told, theirs): (Told, Told) = futures_util::future::join(
                ask(&hot, &trace, pace, stage.times()),
                ask(&troubled, &[0], trouble.pace(), stage.times()),
            )
            .await;
            lock.rollback().await.unwrap();
            beside.push(told.p99());
            failed += told.busy + told.failures();
            eprintln!(
                "{case}: round {round}: the others' p99 {:.1} ms, in a calm {:.1} ms; it had {} served and {:?}, and {} busy",
                beside[beside.len() - 1],
                calm[calm.len() - 1],
                theirs.latencies.len(),
                theirs.failed,
                theirs.busy
            );
        }
        database.close().await.unwrap();
        report.in_rounds(&case, ("others' p99", "ms"), &beside, &calm, Target::AtMost(1.5));
        #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
        report.at_most(&case, ("not served", "of others"), failed as f64, Some(0.0));
    }
}
