//! What a fleet costs that is large: tenants who have nothing to do, and targets that wait.

use end_to_end::bed::{Bed, Store};
use sea_orm::ConnectionTrait as _;
use serde_json::json;

use super::{PATIENCE, roll};
use crate::Effort;
use crate::report::Report;

/// Tenants that are in the registry alone: whoever tried to enter a database of theirs would fail.
async fn plant(bed: &Bed, count: usize, version: u32) {
    let registry = bed.registry().await;
    for part in (0..count).collect::<Vec<_>>().chunks(1_000) {
        let rows: Vec<String> = part
            .iter()
            .map(|number| {
                let id = uuid::Uuid::now_v7();
                format!(
                    "('{id}', 'planted-{number}', 'Planted', 'suspended', 'free', {version}, 1, 0, 1, now(), now())"
                )
            })
            .collect();
        let insert = format!(
            "INSERT INTO tenants (id, slug, name, status, plan, schema_version, generation, revision, version, created_at, \
             updated_at) VALUES {}",
            rows.join(", ")
        );
        registry.execute_unprepared(&insert).await.unwrap();
    }
    registry.close().await.unwrap();
}

pub(super) async fn nothing_to_do(report: &mut Report, effort: Effort) {
    let tenants = effort.either(10_000, 1_000);
    let bed = Bed::start(Store::Postgres, 1, 0).await;
    plant(&bed, tenants, 3).await;
    let took = roll(&bed, 3, false).await;
    eprintln!("{:.2} s for {tenants} tenants who have nothing to do", took.as_secs_f64());
    report.at_most(&format!("nothing to do for {tenants} tenants"), ("time", "s"), took.as_secs_f64(), Some(2.0));
}

/// The most that the control plane had in memory while it planned and worked through so many targets.
pub(super) async fn memory(report: &mut Report, effort: Effort) {
    let tenants = effort.either(100_000, 5_000);
    let bed = Bed::start(Store::Postgres, 1, 0).await;
    let before = peak(&bed);
    plant(&bed, tenants, 1).await;
    let order = json!({ "version": 3, "settings": { "canary": 0 } });
    let rollout = bed.done("POST", "/v1/rollouts", Some(order)).await;
    let id = rollout["id"].as_str().unwrap();
    // Far enough into it: a wave has ended, and the next is at work.
    bed.until_rollout_within(PATIENCE, id, |now| now["wave"].as_u64() > Some(1)).await;
    let after = peak(&bed);
    eprintln!("{before:.0} MB before, {after:.0} MB at most with {tenants} targets");
    report.at_most(&format!("{tenants} pending targets"), ("memory", "MB"), after, Some(100.0));
}

/// The peak resident memory of the control plane, in MB.
fn peak(bed: &Bed) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", bed.control[0].id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1_024.0
}
