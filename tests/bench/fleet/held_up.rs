//! How long a tenant's requests wait for a migration.

use std::time::Duration;

use end_to_end::bed::{Bed, Store, Tenant};
use end_to_end::under_load;
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::json;
use tokio::time::sleep;

use super::{PATIENCE, fleet};
use crate::Effort;
use crate::load::Call;
use crate::report::Report;

/// Longest wait for a lock, as a rollout has it that says nothing else.
const LOCK_TIMEOUT: f64 = 500.0;

/// Requests at once: as many as the tenant's pool has connections, so that what waits does so in the database.
const AT_ONCE: usize = 2;

/// Brings one tenant to version 2, and answers for how long its last attempt was at work, in milliseconds.
async fn roll_one(bed: &Bed, tenant: &Tenant) -> f64 {
    let order = json!({ "version": 2, "select": { "tenants": [tenant.slug] }, "settings": { "attempts": 100 } });
    let rollout = bed.done("POST", "/v1/rollouts", Some(order)).await;
    let id = rollout["id"].as_str().unwrap();
    let ended = bed.until_rollout_within(PATIENCE, id, |now| now["state"] != "running").await;
    assert_eq!((&ended["state"], &ended["counts"]["done"]), (&json!("done"), &json!(1)), "{ended}");
    let targets = bed.done("GET", &format!("/v1/rollouts/{id}/targets"), None).await;
    targets["items"][0]["duration_ms"].as_f64().unwrap()
}

/// Another client's transaction has a table of a tenant in use for ten seconds, while requests of that tenant go on and a
/// rollout wants to change the table: none of them waits for longer than a migration waits for its lock, and runs.
pub(super) async fn by_a_lock(report: &mut Report, effort: Effort) {
    let held = Duration::from_secs(effort.either(10, 3));
    let mut bed = fleet(Store::Postgres, 0).await;
    let control = bed.control[0].url.clone();
    bed.add_node(&control);
    let [quiet, busy] = [bed.tenant("quiet").await, bed.tenant("busy").await];
    bed.until(&busy, "/api/pets", 200).await;
    let call = Call {
        url: bed.data[0].url.clone(),
        path: "/api/pets".to_owned(),
        credential: Some(busy.key.clone()),
        process: bed.data[0].id(),
    };
    let longest = |latencies: &[f64]| latencies.iter().copied().fold(0.0, f64::max);
    let undisturbed = longest(&call.load(AT_ONCE, held).await.latencies);
    let own = roll_one(&bed, &quiet).await;

    let other = service::pool::open(bed.database_url(&busy).await).await.unwrap();
    let transaction = other.begin().await.unwrap();
    transaction.execute_unprepared("SELECT count(*) FROM pets").await.unwrap();
    let lock = async {
        sleep(held).await;
        transaction.rollback().await.unwrap();
    };
    // Until some time after the migration, wherever that is.
    let load = call.load(AT_ONCE, held * 2);
    let ((), measured, _) = tokio::join!(lock, load, roll_one(&bed, &busy));
    let longest = longest(&measured.latencies);
    eprintln!(
        "{} requests, the longest {longest:.0} ms; {undisturbed:.0} ms undisturbed; a migration by itself {own:.0} ms",
        measured.latencies.len()
    );
    let case = format!("a table is in use for {} s: the longest request", held.as_secs());
    report.at_most(&case, ("latency", "ms"), longest, Some(LOCK_TIMEOUT + own + undisturbed));
}

/// Every tenant of a fleet is written to and read from while it is rolled out: nobody's request fails.
pub(super) async fn by_a_rollout(report: &mut Report, effort: Effort) {
    let count = effort.either(300, 20);
    let (bed, tenants) = under_load::fleet(count).await;
    let loaded = under_load::roll(&bed, &tenants).await;
    let (every, newest) = (&loaded.every, &loaded.newest);
    eprintln!(
        "{count} tenants rolled out in {:.1} s under load: {} requests, the longest {:.0} ms; of {} at a product that needs \
         the newest version {} were told to come again, the longest {:.0} ms",
        loaded.took.as_secs_f64(),
        every.requests,
        every.longest.as_secs_f64() * 1_000.0,
        newest.requests,
        newest.behind,
        newest.longest.as_secs_f64() * 1_000.0,
    );
    for failure in every.failures.iter().chain(&newest.failures).take(10) {
        eprintln!("{failure}");
    }
    let case = format!("{count} tenants are rolled out under load: requests that fail");
    let failures = every.behind + every.failures.len() + newest.failures.len();
    #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
    report.at_most(&case, ("failures", "requests"), failures as f64, Some(0.0));
    #[allow(clippy::cast_precision_loss, reason = "a count of requests")]
    report.at_most("the longest of them", ("latency", "ms"), every.longest.as_secs_f64() * 1_000.0, None);
}
