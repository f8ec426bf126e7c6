//! Invariants 5 and 8: a runner that dies at any point of any step, forward or backward, is taken over; nothing is done
//! twice, nothing is left over, and a half-built tenant has no route.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tenancy::Status;
use tokio::sync::Notify;

use super::stage::{Stage, names_of, on_both};
use crate::provision::Kind;
use crate::provision::faults::{Fault, Faults, Point, Side};
use crate::registry::entities::operations;

on_both! {
    a_creation_survives_a_kill_at_every_point_and_a_half_built_tenant_never_routes,
    a_creation_from_the_stock_survives_a_kill_at_every_point,
    an_undo_survives_a_kill_at_every_point,
    a_deletion_survives_a_kill_at_every_point,
    a_rotation_survives_a_kill_at_every_point,
    the_undo_of_a_rotation_survives_a_kill_at_every_point,
}

pub(super) const SIDES: [Side; 3] = [Side::Before, Side::Effect, Side::Committed];

/// A runner works on the operation and dies at the point; what it passed is answered.
pub(super) async fn die_at(stage: &Stage, point: Point, fails_at: Option<&'static str>) -> Faults {
    let arrived = Arc::new(Notify::new());
    let bell = arrived.clone();
    let faults = Faults::new(move |at| {
        if at == point {
            bell.notify_one();
            return Fault::Stall;
        }
        refuse(at, fails_at)
    });
    let runner = stage.runner(&faults);
    let arrival = tokio::time::timeout(Duration::from_mins(1), arrived.notified()).await;
    assert!(arrival.is_ok(), "{point:?} was never reached: {:?}", faults.passed());
    runner.kill().await;
    faults
}

fn refuse(at: Point, fails_at: Option<&str>) -> Fault {
    let fails = fails_at == Some(at.step) && !at.is_undo && at.side == Side::Before;
    if fails { Fault::Refuse } else { Fault::None }
}

/// Another runner goes on. No step is written down twice, by both together.
pub(super) async fn go_on(
    stage: &Stage,
    operation: &operations::Model,
    first: &Faults,
    fails_at: Option<&'static str>,
) -> operations::Model {
    stage.lapse().await;
    let second = Faults::new(move |at| refuse(at, fails_at));
    let ended = stage.work_until_ended(operation, &second).await;
    let mut written: BTreeMap<Point, usize> = BTreeMap::new();
    for (point, times) in first.passed().into_iter().chain(second.passed()) {
        if point.side == Side::Committed {
            *written.entry(point).or_default() += times;
        }
    }
    assert!(written.values().all(|times| *times == 1), "{written:?}");
    ended
}

async fn a_creation_survives_a_kill_at_every_point_and_a_half_built_tenant_never_routes(stage: &Stage) {
    let mut kills = 0;
    for step in names_of(Kind::Create) {
        for side in SIDES {
            let operation = stage.create(&format!("acme-{kills}"), None).await;
            let first = die_at(stage, Point { step, is_undo: false, side }, None).await;
            // They share a commit.
            let is_active = matches!(step, "seed" | "activate") && side == Side::Committed;
            assert_eq!(stage.route(&operation).await.is_some(), is_active, "{step} {side:?}");
            let ended = go_on(stage, &operation, &first, None).await;
            assert_eq!((ended.state.as_str(), ended.error), ("done", None), "{step} {side:?}");
            stage.assert_built(&operation).await;
            kills += 1;
        }
    }
    assert_eq!(kills, 24);
    let names = stage.names().await;
    assert_eq!(names.len(), kills, "each tenant has exactly one database");
    assert_eq!(stage.leftovers(&names).await, [""; 0]);
}

/// Half of the points are in steps that find their work done.
async fn a_creation_from_the_stock_survives_a_kill_at_every_point(stage: &Stage) {
    let mut kills = 0;
    for step in names_of(Kind::Create) {
        for side in SIDES {
            stage.keep(1).await;
            let ready = stage.stock().await;
            let operation = stage.create(&format!("acme-{kills}"), None).await;
            let first = die_at(stage, Point { step, is_undo: false, side }, None).await;
            let ended = go_on(stage, &operation, &first, None).await;
            assert_eq!((ended.state.as_str(), ended.error), ("done", None), "{step} {side:?}");
            stage.assert_built(&operation).await;
            assert!(ready.contains(stage.names().await.last().unwrap()) || kills > 0, "it was ready");
            kills += 1;
        }
    }
    assert_eq!(kills, 24);
    assert_eq!(stage.stock().await.len(), 1, "the template is left");
    let names = stage.names().await;
    assert_eq!(names.len(), kills, "each tenant has exactly one database");
    assert_eq!(stage.leftovers(&names).await, [""; 0]);
}

async fn an_undo_survives_a_kill_at_every_point(stage: &Stage) {
    let mut kills = 0;
    for step in names_of(Kind::Create) {
        for side in SIDES {
            let operation = stage.create(&format!("acme-{kills}"), None).await;
            let first = die_at(stage, Point { step, is_undo: true, side }, Some("activate")).await;
            let names = stage.names().await;
            let ended = go_on(stage, &operation, &first, Some("activate")).await;
            assert_eq!(ended.state, "failed", "{step} {side:?}");
            assert_eq!(ended.error.as_deref(), Some("activate: a fault of the test"));
            assert_eq!(stage.status(&operation).await, Status::Failed);
            assert!(stage.route(&operation).await.is_none());
            assert_eq!(stage.names().await, [""; 0]);
            assert_eq!(stage.leftovers(&names).await, [""; 0], "{step} {side:?}");
            kills += 1;
        }
    }
    assert_eq!(kills, 24);
}

async fn a_deletion_survives_a_kill_at_every_point(stage: &Stage) {
    let mut kills = 0;
    for step in names_of(Kind::Delete) {
        for side in SIDES {
            let created = stage.create(&format!("acme-{kills}"), None).await;
            stage.work_until_ended(&created, &Faults::default()).await;
            let names = stage.names().await;
            let operation = stage.delete(&created, Status::Active).await;
            let first = die_at(stage, Point { step, is_undo: false, side }, None).await;
            let ended = go_on(stage, &operation, &first, None).await;
            assert_eq!((ended.state.as_str(), ended.error), ("done", None), "{step} {side:?}");
            stage.assert_forgotten(&operation).await;
            assert_eq!(stage.leftovers(&names).await, [""; 0], "{step} {side:?}");
            kills += 1;
        }
    }
    assert_eq!(kills, 12);
}

async fn a_rotation_survives_a_kill_at_every_point(stage: &Stage) {
    let created = stage.create("acme", None).await;
    stage.work_until_ended(&created, &Faults::default()).await;
    let mut kills = 0;
    for step in names_of(Kind::Rotate) {
        for side in SIDES {
            let operation = stage.rotate(&created, false).await;
            let first = die_at(stage, Point { step, is_undo: false, side }, None).await;
            let ended = go_on(stage, &operation, &first, None).await;
            assert_eq!((ended.state.as_str(), ended.error), ("done", None), "{step} {side:?}");
            kills += 1;
            assert_eq!(stage.tenant(&created).await.generation, 1 + kills, "each took effect once");
            stage.assert_credentials(&created).await;
        }
    }
    assert_eq!(kills, 15);
}

async fn the_undo_of_a_rotation_survives_a_kill_at_every_point(stage: &Stage) {
    let created = stage.create("acme", None).await;
    stage.work_until_ended(&created, &Faults::default()).await;
    let mut kills = 0;
    for step in ["new_url", "new_role", "switch"] {
        for side in SIDES {
            let operation = stage.rotate(&created, false).await;
            let first = die_at(stage, Point { step, is_undo: true, side }, Some("switch")).await;
            let ended = go_on(stage, &operation, &first, Some("switch")).await;
            assert_eq!(ended.state, "failed", "{step} {side:?}");
            assert_eq!(stage.status(&created).await, Status::Active, "the tenant is served as before");
            assert_eq!(stage.tenant(&created).await.generation, 1);
            stage.assert_credentials(&created).await;
            kills += 1;
        }
    }
    assert_eq!(kills, 9);
}
