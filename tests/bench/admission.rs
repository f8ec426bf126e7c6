//! What admission costs, step by step; and what an outsider can tell by a clock: whether answers for a tenant of others and
//! for one that never was differ in time.
//!
//! Both are asked in turn, in pairs of random order, on one connection. The statistic is Mann and Whitney's: the chance that
//! an answer of the one kind takes longer than one of the other. Nothing is told by 0.5.

mod walk;

use std::time::Instant;

use end_to_end::bed::{Bed, Store, send};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::Effort;
use crate::report::{Report, median};

/// How far from 0.5 the chance may be.
const TARGET: f64 = 0.02;

pub(crate) async fn measure(effort: Effort) -> Report {
    let mut report = Report::new("admission");
    walk::measure(&mut report, effort).await;
    outsiders(&mut report, effort).await;
    report
}

/// Whether the time of an answer tells that a tenant exists.
async fn outsiders(report: &mut Report, effort: Effort) {
    let bed = Bed::start(Store::Sqlite, 1, 1).await;
    let outsider = bed.tenant("outsider").await;
    let foreign = bed.tenant("foreign").await;
    // The node knows both.
    bed.until(&outsider, "/api/me", 200).await;
    bed.until(&foreign, "/api/me", 200).await;
    let rounds = effort.either(20_000, 2_000);
    let named = |way: &str, slug: &str| match way {
        "path" => bed.request(0, "GET", &format!("/{slug}/api/pets")),
        "host" => bed.request(0, "GET", "/api/pets").header("host", format!("{slug}.pets.test")),
        _ => bed.request(0, "GET", "/api/pets").header("x-tenant-id", slug),
    };
    for way in ["path", "host", "header"] {
        for (credential, key, status) in [("another's key", Some(&outsider.key), 404), ("no credential", None, 401)] {
            // Names of one length, so that nothing else differs.
            let [foreign, unknown] = times(rounds, ["foreign", "unknown"], |slug| {
                let call = named(way, slug);
                let call = match key {
                    Some(key) => call.bearer_auth(key),
                    None => call,
                };
                async move {
                    let begun = Instant::now();
                    let answer = send(call).await;
                    let time = begun.elapsed().as_secs_f64() * 1e6;
                    assert_eq!(answer.status, status, "{answer:?}");
                    time
                }
            })
            .await;
            let case = format!("named by {way}, {credential}");
            report.compared(&case, ("p50", "us"), median(&foreign), median(&unknown), None);
            let chance = chance_of_longer(&foreign, &unknown);
            report.at_most(&case, ("|P - 0.5|", ""), (chance - 0.5).abs(), Some(TARGET));
        }
        eprintln!("{way}: {rounds} pairs with a credential and without");
    }
}

/// The times of both kinds, asked in pairs whose order is drawn.
async fn times<F: Future<Output = f64>>(rounds: usize, kinds: [&str; 2], ask: impl Fn(&str) -> F) -> [Vec<f64>; 2] {
    let mut random = StdRng::seed_from_u64(7);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..rounds {
        let first = usize::from(random.random::<bool>());
        for kind in [first, 1 - first] {
            times[kind].push(ask(kinds[kind]).await);
        }
    }
    times
}

/// The chance that one of `ours` is longer than one of `others`, where both are as long half of it (Mann and Whitney, "On a
/// test of whether one of two random variables is stochastically larger than the other", 1947).
fn chance_of_longer(ours: &[f64], others: &[f64]) -> f64 {
    let mut others = others.to_vec();
    others.sort_by(f64::total_cmp);
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let longer = |time: f64| {
        let below = others.partition_point(|time_of_other| *time_of_other < time) as f64;
        let not_above = others.partition_point(|time_of_other| *time_of_other <= time) as f64;
        f64::midpoint(below, not_above) / others.len() as f64
    };
    #[allow(clippy::cast_precision_loss, reason = "far fewer than 2^52")]
    let count = ours.len() as f64;
    ours.iter().map(|time| longer(*time)).sum::<f64>() / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_is_a_half_for_the_same_and_more_for_the_longer() {
        let one: Vec<f64> = (0..100).map(f64::from).collect();
        let later: Vec<f64> = one.iter().map(|time| time + 10.0).collect();
        assert!((chance_of_longer(&one, &one) - 0.5).abs() < 1e-9);
        assert!((chance_of_longer(&later, &one) + chance_of_longer(&one, &later) - 1.0).abs() < 1e-9);
        assert!(chance_of_longer(&later, &one) > 0.58);
        assert!((chance_of_longer(&[5.0], &[1.0]) - 1.0).abs() < 1e-9);
    }
}
