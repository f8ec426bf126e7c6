//! All tenants come at once, each for one request, while some are hot: as after an outage, or when mail went to all customers.

use std::time::Duration;

use super::crowd::{Asked, Pace, ask};
use super::neighbours::calm_load;
use super::replay::Times;
use super::{rounds, times};
use crate::Effort;
use crate::report::{Report, Target};

pub(super) async fn measure(report: &mut Report, effort: Effort, asked: &Asked, engine: &str) {
    let tenants = asked.headers.len();
    let (hot, trace, pace) = calm_load(times(effort), asked).await;
    let length = Duration::from_secs(effort.either(60, 15));
    let case = format!("{tenants} tenants on {engine} touched once in {} s", length.as_secs());
    let every: Vec<usize> = (0..tenants).collect();
    #[allow(clippy::cast_precision_loss, reason = "a few thousand tenants")]
    let touch = Pace::Rate(tenants as f64 / length.as_secs_f64());
    let all = Times { warming: Duration::ZERO, measured: length };
    let (mut calm, mut stormy, mut busy, mut failed) = (Vec::new(), Vec::new(), 0, 0);
    for round in 1..=rounds(effort) {
        let told = ask(&hot, &trace, pace, times(effort)).await;
        calm.push(told.p99());
        let (told, touched) =
            futures_util::future::join(ask(&hot, &trace, pace, all), ask(asked, &every, touch, all)).await;
        stormy.push(told.p99());
        busy += told.busy + touched.busy;
        failed += told.failures() + touched.failures();
        eprintln!(
            "{case}: round {round}: p99 of the hot {:.1} ms, in a calm {:.1} ms; of the touched {:.1} ms; failed {:?} {:?}",
            stormy[stormy.len() - 1],
            calm[calm.len() - 1],
            touched.p99(),
            told.failed,
            touched.failed,
        );
    }
    report.in_rounds(&case, ("hot p99", "ms"), &stormy, &calm, Target::AtMost(2.0));
    #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
    {
        report.at_most(&case, ("failed", "requests"), failed as f64, Some(0.0));
        report.at_most(&case, ("server-busy", "requests"), busy as f64, None);
    }
}
