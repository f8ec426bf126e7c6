//! Provisioning on real servers: each test has a registry of its own, on SQLite and on Postgres.

mod activate;
mod admin;
mod clock;
mod delete;
pub(crate) mod disk;
mod fix;
mod held;
mod kill;
mod mail;
pub(crate) mod notes;
mod outcome;
mod place;
mod prune;
mod reseal;
mod room;
mod rotate;
mod sessions;
mod share;
mod slots;
pub(crate) mod stage;
mod stock;
mod undo;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use sea_orm::EntityTrait;
use tenancy::Status;

use super::faults::{Fault, Faults, Side};
use super::pace::Pace;
use super::*;
use crate::registry::entities::{databases, operation_steps};
use stage::{Stage, on_both};

on_both! {
    a_tenant_is_built_and_routes_only_when_it_is_active,
    a_wait_ends_with_its_time_and_a_retry_of_no_failure_is_refused,
    a_server_that_goes_silent_costs_one_attempt
}

async fn a_tenant_is_built_and_routes_only_when_it_is_active(stage: &Stage) {
    let operation = stage.create("acme", None).await;
    assert!(stage.route(&operation).await.is_none());
    let faults = Faults::default();
    let ended = stage.work_until_ended(&operation, &faults).await;
    assert_eq!((ended.state.as_str(), ended.error, ended.lease_holder), ("done", None, None));
    assert!(ended.finished_at.is_some() && ended.lease_until.is_none());
    stage.assert_built(&operation).await;
    let steps = operation_steps::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    assert_eq!(steps.len(), stage::names_of(Kind::Create).len());
    assert!(steps.iter().all(|step| step.state == "done" && step.attempts == 1 && step.error.is_none()), "{steps:?}");
    assert_eq!(databases::Entity::find().all(stage.plane.registry.db()).await.unwrap().len(), 1);
    assert_eq!(stage.status(&operation).await, Status::Active);
}

async fn a_wait_ends_with_its_time_and_a_retry_of_no_failure_is_refused(stage: &Stage) {
    let operation = stage.create("acme", None).await;
    let waited = wait(&stage.plane, operation.id, Duration::from_millis(5)).await.unwrap();
    assert_eq!(waited.state, "pending");
    let refused = stage.retry(operation.id).await.unwrap_err();
    assert_eq!((refused.status().as_u16(), refused.kind()), (409, "illegal-transition"));
    let unknown = stage.retry(uuid::Uuid::now_v7()).await.unwrap_err();
    assert_eq!((unknown.status().as_u16(), unknown.kind()), (404, "operation-not-found"));
    assert!(wait(&stage.plane, uuid::Uuid::now_v7(), Duration::ZERO).await.is_err());
}

async fn a_server_that_goes_silent_costs_one_attempt(stage: &Stage) {
    let operation = stage.create("acme", None).await;
    let silences = AtomicUsize::new(1);
    let faults = Faults::new(move |point| {
        let is_hit = point.step == "stamp" && point.side == Side::Before;
        let is_silent = is_hit && silences.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
        if is_silent { Fault::Stall } else { Fault::None }
    });
    // Long enough for the slowest step of a busy machine.
    let runner = stage.runner_at(Pace { attempt: Duration::from_secs(5), ..Stage::pace(&faults) });
    let ended = stage.ended(&operation).await;
    runner.stop().await;
    assert_eq!(ended.state, "done");
    let steps = operation_steps::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    let attempts: Vec<_> = steps.iter().filter(|step| step.attempts > 1).map(|step| step.name.as_str()).collect();
    assert_eq!(attempts, ["stamp"]);
}

#[test]
fn kinds_are_read_back() {
    for kind in Kind::ALL {
        assert_eq!(kind.as_str().parse(), Ok(kind));
    }
    assert_eq!("borrow".parse::<Kind>(), Err(UnknownKind));
}
