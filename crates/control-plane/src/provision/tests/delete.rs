//! Deletion: waits for the data planes, can be called off before it began, and is tried until nothing is left.

use sea_orm::EntityTrait;
use tenancy::Status;
use tenancy::route::Revision;

use super::stage::{Stage, on_both};
use crate::engine::DatabaseName;
use crate::provision::cancel_delete;
use crate::provision::faults::{Fault, Faults, Point, Side};
use crate::registry::entities::{held_slugs, operation_steps, servers};

on_both! {
    a_deletion_waits_until_every_data_plane_has_let_go,
    a_deletion_is_called_off_before_it_began_and_not_after,
    a_tenant_whose_creation_failed_is_forgotten,
    a_deletion_leaves_a_database_that_is_stamped_for_another,
}

async fn a_deletion_waits_until_every_data_plane_has_let_go(stage: &Stage) {
    let created = stage.built("acme").await;
    let names = stage.names().await;
    let mut request = stage.behind().await;
    let operation = stage.delete(&created, Status::Active).await;
    let runner = stage.runner(&Faults::default());
    let waiting = loop {
        let row = stage.operation(&operation).await;
        if row.error.is_some() {
            break row;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(waiting.state, "running");
    assert!(waiting.error.unwrap().starts_with("disconnect: data planes have not let go of what was before yet (1, "));
    assert_eq!(stage.names().await, names, "its database is untouched");
    assert_eq!(stage.status(&operation).await, Status::Deleting);

    request.applied = Revision(stage.tenant(&operation).await.revision.unsigned_abs());
    stage.hear(&request).await;
    let ended = stage.ended(&operation).await;
    runner.stop().await;
    assert_eq!((ended.state.as_str(), ended.error), ("done", None));
    assert!(stage.tenant(&operation).await.revision.unsigned_abs() > request.applied.0, "data planes hear of the end");
    stage.assert_forgotten(&operation).await;
    assert_eq!(stage.leftovers(&names).await, [""; 0]);
}

async fn a_deletion_is_called_off_before_it_began_and_not_after(stage: &Stage) {
    let created = stage.built("acme").await;
    let operation = stage.delete(&created, Status::Active).await;
    let change = stage.plane.registry.change().await.unwrap();
    assert!(cancel_delete(&change, created.tenant_id.unwrap()).await.unwrap());
    assert!(!cancel_delete(&change, created.tenant_id.unwrap()).await.unwrap());
    change.commit().await.unwrap();
    assert_eq!(stage.ended(&operation).await.state, "cancelled");

    let operation = stage.delete(&created, Status::Active).await;
    let stalled = Point { step: "disconnect", is_undo: false, side: Side::Before };
    let faults = Faults::new(move |point| if point == stalled { Fault::Stall } else { Fault::None });
    let runner = stage.runner(&faults);
    while !faults.passed().contains_key(&stalled) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let change = stage.plane.registry.change().await.unwrap();
    assert!(!cancel_delete(&change, created.tenant_id.unwrap()).await.unwrap(), "it has begun");
    change.commit().await.unwrap();
    runner.kill().await;
    let change = stage.plane.registry.change().await.unwrap();
    assert!(!cancel_delete(&change, created.tenant_id.unwrap()).await.unwrap(), "it had begun");
    drop(change);
    stage.lapse().await;
    assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    stage.assert_forgotten(&operation).await;
}

async fn a_tenant_whose_creation_failed_is_forgotten(stage: &Stage) {
    let faults =
        Faults::new(|point| if point.step == "migrate" && !point.is_undo { Fault::Refuse } else { Fault::None });
    let created = stage.create("acme", None).await;
    assert_eq!(stage.work_until_ended(&created, &faults).await.state, "failed");
    let operation = stage.delete(&created, Status::Failed).await;
    assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    stage.assert_forgotten(&operation).await;
    let refused = stage.retry(created.id).await.unwrap_err();
    assert_eq!((refused.status().as_u16(), refused.kind()), (409, "illegal-transition"));
    let steps = operation_steps::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    assert!(steps.iter().all(|step| step.operation_id != created.id || step.state != "done"));
    let held = async || held_slugs::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    assert!(held().await.is_empty(), "nobody was ever led there");
    // Another of the same slug that was served: it is held back.
    let created = stage.built("acme").await;
    let deleted = stage.delete(&created, Status::Active).await;
    assert_eq!(stage.work_until_ended(&deleted, &Faults::default()).await.state, "done");
    let held = held().await;
    assert!(held.len() == 1 && held[0].slug == "acme" && held[0].until > chrono::Utc::now(), "{held:?}");
}

async fn a_deletion_leaves_a_database_that_is_stamped_for_another(stage: &Stage) {
    let created = stage.built("acme").await;
    let name: DatabaseName = stage.names().await[0].parse().unwrap();
    let server = servers::Entity::find_by_id(stage.server).one(stage.plane.registry.db()).await.unwrap().unwrap();
    let engine = stage.plane.engine(&server).unwrap();
    let entered = engine.enter(&name).await.unwrap();
    entered.execute("UPDATE freehold_stamp SET tenant_id = 'another'").await;
    entered.leave().await.unwrap();
    let operation = stage.delete(&created, Status::Active).await;
    assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    stage.assert_forgotten(&operation).await;
    assert!(engine.has_database(&name).await.unwrap(), "its tenant may yet look for it");
    engine.drop_database(&name).await.unwrap();
}
