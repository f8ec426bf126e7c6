//! A tenant that is activated while the fleet's schema version moves has the new one: no rollout knows of it.

use std::sync::Arc;

use tokio::sync::Notify;

use super::stage::{Stage, in_time, on_both};
use crate::provision::faults::{Fault, Faults, Side};

on_both! {
    a_tenant_that_was_built_for_the_version_before_is_migrated_before_it_is_activated,
}

async fn move_fleet(stage: &Stage, version: i32) {
    let mut change = stage.plane.registry.change().await.unwrap();
    change.move_fleet(version);
    change.commit().await.unwrap();
}

/// Moves the fleet on when the work has come to the step, and before it goes on.
async fn built_while_the_fleet_moves(stage: &Stage, step: &'static str, side: Side) {
    move_fleet(stage, 1).await;
    let operation = stage.create("acme", None).await;
    let (reached, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (bell, until) = (Arc::clone(&reached), Arc::clone(&go_on));
    let is_first = std::sync::atomic::AtomicBool::new(true);
    let faults = Faults::new(move |point| {
        let is_here = point.step == step && point.side == side && !point.is_undo;
        if is_here && is_first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            bell.notify_one();
            return Fault::Pause(Arc::clone(&until));
        }
        Fault::None
    });
    let runner = stage.runner(&faults);
    reached.notified().await;
    assert_eq!(stage.tenant(&operation).await.status, "provisioning");
    move_fleet(stage, 2).await;
    go_on.notify_one();
    assert_eq!(stage.ended(&operation).await.state, "done");
    runner.stop().await;
    assert_eq!(stage.tenant(&operation).await.schema_version, 2);
    assert_eq!(stage.route(&operation).await.unwrap().schema_version, 2);
}

async fn a_tenant_that_was_built_for_the_version_before_is_migrated_before_it_is_activated(stage: &Stage) {
    built_while_the_fleet_moves(stage, "seed", Side::Before).await;
}

/// In the very change that activates it. A file has one writer: there nothing can move meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_activation_does_not_commit_once_the_fleet_has_moved() {
    let stage = Stage::postgres().await;
    in_time(built_while_the_fleet_moves(&stage, "activate", Side::Effect)).await;
    stage.clear().await;
}
