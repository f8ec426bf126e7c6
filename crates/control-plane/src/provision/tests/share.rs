//! Any number of runners share the work: each operation is one's at a time, and who lost it changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sea_orm::EntityTrait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::stage::{Stage, in_time, names_of, on_both};
use crate::provision::Kind;
use crate::provision::faults::{Fault, Faults, Point, Side};
use crate::provision::slots::{Slots, take};
use crate::provision::walk::walk;
use crate::registry::entities::{databases, operation_steps, operations, tenants};

on_both! {
    two_runners_do_twenty_operations_exactly_once_each,
    who_lost_the_lease_writes_nothing,
    a_frozen_holder_does_nothing_when_it_wakes_up,
    a_lease_is_renewed_while_a_step_takes_long,
    a_stop_finishes_the_step_at_hand_and_lets_the_lease_go,
}

/// All that an operation may write to.
async fn rows(stage: &Stage) -> String {
    let db = stage.plane.registry.db();
    let mut tenants = tenants::Entity::find().all(db).await.unwrap();
    tenants.sort_by_key(|row| row.id);
    let tenants: Vec<_> = tenants.iter().map(|it| (&it.status, it.version, it.revision, it.updated_at)).collect();
    let mut steps = operation_steps::Entity::find().all(db).await.unwrap();
    steps.sort_by_key(|row| (row.operation_id, row.position));
    let operations = operations::Entity::find().all(db).await.unwrap();
    format!("{tenants:?} {steps:?} {operations:?} {:?}", databases::Entity::find().all(db).await.unwrap())
}

async fn two_runners_do_twenty_operations_exactly_once_each(stage: &Stage) {
    let faults = Faults::default();
    let runners = [stage.runner(&faults), stage.runner(&faults)];
    let mut operations = Vec::new();
    for index in 0..20 {
        operations.push(stage.create(&format!("acme-{index}"), None).await);
        stage.plane.wake.ring();
    }
    for operation in &operations {
        let ended = stage.ended(operation).await;
        assert_eq!((ended.state.as_str(), ended.error, ended.fence), ("done", None, 1));
        stage.assert_built(operation).await;
    }
    for runner in runners {
        runner.stop().await;
    }
    for step in names_of(Kind::Create) {
        for side in [Side::Before, Side::Effect, Side::Committed] {
            assert_eq!(faults.passed()[&Point { step, is_undo: false, side }], 20, "{step} {side:?}");
        }
    }
    assert_eq!(stage.names().await.len(), 20);
}

async fn who_lost_the_lease_writes_nothing(stage: &Stage) {
    // Those that do something outside of the registry; what the others do is in the change that the loser cannot commit.
    for step in names_of(Kind::Create).into_iter().filter(|step| !matches!(*step, "claim" | "activate")) {
        let (arrived, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (bell, until) = (arrived.clone(), goes_on.clone());
        let faults = Faults::new(move |point| {
            if point == (Point { step, is_undo: false, side: Side::Before }) {
                bell.notify_one();
                return Fault::Pause(until.clone());
            }
            Fault::None
        });
        let operation = stage.create(&step.replace('_', "-"), None).await;
        let pace = Stage::pace(&faults);
        let mut old = take(&stage.plane.registry, Uuid::new_v4(), &pace, Slots::new(8)).await.unwrap();
        let old = old.pop().expect("it is due");
        let slow = tokio::spawn(walk(stage.plane.clone(), old, pace, CancellationToken::new()));
        arrived.notified().await;
        // It is taken for dead, and another does the work.
        stage.lapse().await;
        assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
        let before = rows(stage).await;
        goes_on.notify_one();
        slow.await.unwrap();
        assert_eq!(rows(stage).await, before, "{step}");
        stage.assert_built(&operation).await;
    }
    let names = stage.names().await;
    assert_eq!(stage.leftovers(&names).await, [""; 0]);
}

async fn a_frozen_holder_does_nothing_when_it_wakes_up(stage: &Stage) {
    stage.create("acme", None).await;
    let mut pace = Stage::pace(&Faults::default());
    pace.lease = Duration::from_millis(300);
    let lease = take(&stage.plane.registry, Uuid::new_v4(), &pace, Slots::new(1)).await.unwrap().pop().unwrap();
    let went_on = AtomicBool::new(false);
    let held = lease.hold(async {
        // The whole thread stands still, as in a process that is stopped.
        std::thread::sleep(Duration::from_millis(400));
        tokio::task::yield_now().await;
        went_on.store(true, Ordering::Relaxed);
    });
    assert!(held.await.is_err());
    assert!(!went_on.load(Ordering::Relaxed));
}

async fn a_lease_is_renewed_while_a_step_takes_long(stage: &Stage) {
    let operation = stage.create("acme", None).await;
    let mut pace = Stage::pace(&Faults::default());
    pace.lease = Duration::from_millis(600);
    let lease = take(&stage.plane.registry, Uuid::new_v4(), &pace, Slots::new(1)).await.unwrap().pop().unwrap();
    let taken_until = stage.operation(&operation).await.lease_until.unwrap();
    let renewed = lease.hold(async {
        while stage.operation(&operation).await.lease_until.unwrap() < taken_until + pace.lease {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    tokio::time::timeout(20 * pace.lease, renewed).await.expect("it is renewed").expect("in time");
    assert!(take(&stage.plane.registry, Uuid::new_v4(), &pace, Slots::new(1)).await.unwrap().is_empty());
    lease.release(stage.plane.registry.present()).await.unwrap();
    let next = take(&stage.plane.registry, Uuid::new_v4(), &pace, Slots::new(1)).await.unwrap().pop().unwrap();
    assert_eq!(next.operation().fence, 2);
    assert!(lease.change().await.is_err(), "let go is let go");
}

async fn a_stop_finishes_the_step_at_hand_and_lets_the_lease_go(stage: &Stage) {
    let (arrived, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (bell, until) = (arrived.clone(), goes_on.clone());
    let faults = Faults::new(move |point| {
        if point == (Point { step: "migrate", is_undo: false, side: Side::Before }) {
            bell.notify_one();
            return Fault::Pause(until.clone());
        }
        Fault::None
    });
    let operation = stage.create("acme", None).await;
    let runner = stage.runner(&faults);
    arrived.notified().await;
    runner.stopping.cancel();
    goes_on.notify_one();
    runner.stop().await;
    let left = stage.operation(&operation).await;
    assert_eq!((left.state.as_str(), left.lease_holder, left.lease_until), ("running", None, None));
    assert_eq!(faults.passed()[&Point { step: "migrate", is_undo: false, side: Side::Committed }], 1);
    assert!(!faults.passed().keys().any(|point| point.step == "stamp"), "no further step was begun");
    // Nobody waits for a lease to lapse.
    assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    stage.assert_built(&operation).await;
}

/// Every session with the registry is ended, in the middle of the work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_ends_its_sessions_fails_no_operation() {
    let stage = Stage::postgres().await;
    in_time(survives_ended_sessions(&stage)).await;
    stage.clear().await;
}

async fn survives_ended_sessions(stage: &Stage) {
    for step in ["claim", "migrate", "activate"] {
        let (arrived, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (bell, until) = (arrived.clone(), goes_on.clone());
        let is_first = AtomicBool::new(true);
        let faults = Faults::new(move |point| {
            let here = Point { step, is_undo: false, side: Side::Before };
            if point == here && is_first.swap(false, Ordering::Relaxed) {
                bell.notify_one();
                return Fault::Pause(until.clone());
            }
            Fault::None
        });
        let operation = stage.create(step, None).await;
        let runner = stage.runner(&faults);
        arrived.notified().await;
        stage.end_registry_sessions().await;
        goes_on.notify_one();
        let ended = stage.ended_whatever_fails(&operation).await;
        runner.stop().await;
        assert_eq!((ended.state.as_str(), ended.error), ("done", None), "{step}");
        stage.assert_built(&operation).await;
    }
}
