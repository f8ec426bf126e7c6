//! The first request of a tenant that has no connection, on a server that has nothing else to do.

use std::time::{Duration, Instant};

use end_to_end::process::Process;
use sea_orm::sqlx::Connection as _;
use tenancy::stamp;

use super::crowd::{Pace, ask};
use super::replay::{Times, connect, list};
use super::{MANY, Stage};
use crate::report::{Report, Target, median};

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
            let once = Times { warming: Duration::ZERO, measured: Duration::from_secs(5) };
            let told = ask(&asked, &[tenant], Pace::Once, once).await;
            first.push(told.latencies[0]);
            let begun = Instant::now();
            let mut connection = connect(&stage.town.urls[tenant]).await;
            let found: String = sea_orm::sqlx::query_scalar(stamp::SELECT).fetch_one(&mut connection).await.unwrap();
            assert_eq!(found, stage.town.tenants[tenant].id);
            list(&mut connection).await;
            by_hand.push(begun.elapsed().as_secs_f64() * 1_000.0);
            let _ = connection.close().await;
        }
        ours.push(median(&first));
        bare.push(median(&by_hand));
    }
    let case = "the first request of a cold tenant";
    report.in_rounds(case, ("p50", "ms"), &ours, &bare, Target::AtMost(1.3));
}
