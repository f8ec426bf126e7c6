//! What was ordered in another epoch is held: nobody takes it, its holder stops, and it goes on when it is told to.

use std::sync::Arc;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter};
use tenancy::Status;
use tenancy::feed::{FeedAnswer, FeedRequest};
use tenancy::route::{Epoch, Revision};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::stage::{Stage, on_both};
use crate::doctor::{self, Doctor, Finding, Position};
use crate::provision::faults::{Fault, Faults, Point, Side};
use crate::provision::slots::{Slots, take};
use crate::provision::{Kind, On, begun, cancel_delete, holds, is_held, open};
use crate::registry::entities::{history, operations};

on_both! {
    nothing_of_another_epoch_goes_on_before_it_is_told_to,
    a_holder_stops_when_another_epoch_begins,
    an_operation_that_was_begun_goes_before_others_of_its_tenant,
    no_tenant_is_deleted_while_the_registry_lacks_what_a_node_was_given,
    a_deletion_at_work_stops_when_the_registry_is_known_to_lack_something,
}

async fn begin_epoch(stage: &Stage) -> Uuid {
    let registry = &stage.plane.registry;
    let old = registry.history().await.unwrap().epoch;
    registry.begin_epoch(old).await.unwrap().epoch
}

async fn count_held(stage: &Stage) -> u64 {
    operations::Entity::find().filter(holds()).count(stage.plane.registry.db()).await.unwrap()
}

/// A creation whose runner dies where it has a database and no role.
async fn half_made(stage: &Stage, slug: &str) -> operations::Model {
    let arrived = Arc::new(Notify::new());
    let bell = arrived.clone();
    let faults = Faults::new(move |at| {
        if at == (Point { step: "roles", is_undo: false, side: Side::Before }) {
            bell.notify_one();
            return Fault::Stall;
        }
        Fault::None
    });
    let operation = stage.create(slug, None).await;
    let runner = stage.runner(&faults);
    arrived.notified().await;
    runner.kill().await;
    stage.lapse().await;
    operation
}

async fn nothing_of_another_epoch_goes_on_before_it_is_told_to(stage: &Stage) {
    let gone = stage.built("gone").await;
    let deletion = stage.delete(&gone, Status::Active).await;
    // Twice is as good as once, and a version of before wrote no epoch.
    begin_epoch(stage).await;
    let creation = half_made(stage, "half").await;
    let older = stage.create("older", None).await;
    operations::Entity::update_many()
        .col_expr(operations::Column::Epoch, Expr::value(None::<Uuid>))
        .filter(operations::Column::Id.eq(older.id))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
    let epoch = begin_epoch(stage).await;
    let all = [deletion, creation, older];
    let mut before = Vec::new();
    for operation in &all {
        let row = stage.operation(operation).await;
        assert!(is_held(&row, epoch));
        before.push(row);
    }
    assert_eq!(count_held(stage).await, 3);
    // They were due first: a runner that does what came after them has passed them by.
    let next = stage.create("next", None).await;
    assert_eq!(stage.work_until_ended(&next, &Faults::default()).await.state, "done");
    for (operation, before) in all.iter().zip(before) {
        assert_eq!(stage.operation(operation).await, before);
    }
    assert_eq!(stage.status(&all[0]).await, Status::Deleting);
    assert_eq!(stage.status(&all[1]).await, Status::Provisioning);
    for operation in &all {
        stage.retry(operation.id).await.unwrap();
        assert!(!is_held(&stage.operation(operation).await, epoch));
        let ended = stage.work_until_ended(operation, &Faults::default()).await;
        assert_eq!((ended.state.as_str(), ended.error), ("done", None));
    }
    stage.assert_forgotten(&all[0]).await;
    stage.assert_built(&all[1]).await;
    assert_eq!(count_held(stage).await, 0);
    assert_eq!(stage.retry(all[1].id).await.unwrap_err().kind(), "illegal-transition", "it has ended");
}

async fn a_holder_stops_when_another_epoch_begins(stage: &Stage) {
    let (arrived, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (bell, until) = (arrived.clone(), goes_on.clone());
    let faults = Faults::new(move |at| {
        if at == (Point { step: "stamp", is_undo: false, side: Side::Before }) {
            bell.notify_one();
            return Fault::Pause(until.clone());
        }
        Fault::None
    });
    let operation = stage.create("acme", None).await;
    let runner = stage.runner(&faults);
    arrived.notified().await;
    begin_epoch(stage).await;
    goes_on.notify_one();
    runner.stop().await;
    let left = stage.operation(&operation).await;
    assert_eq!(left.state, "running");
    assert!(!faults.passed().contains_key(&Point { step: "stamp", is_undo: false, side: Side::Committed }));
    // What it had begun is ended by whoever goes on.
    stage.lapse().await;
    assert!(
        take(&stage.plane.registry, Uuid::new_v4(), &Stage::pace(&faults), Slots::new(8)).await.unwrap().is_empty()
    );
    stage.retry(operation.id).await.unwrap();
    assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    stage.assert_built(&operation).await;
}

async fn an_operation_that_was_begun_goes_before_others_of_its_tenant(stage: &Stage) {
    let tenant = stage.built("acme").await;
    let rotation = stage.rotate(&tenant, false).await;
    let pace = Stage::pace(&Faults::default());
    drop(take(&stage.plane.registry, Uuid::new_v4(), &pace, Slots::new(1)).await.unwrap());
    stage.lapse().await;
    let deletion = stage.delete(&tenant, Status::Active).await;
    let epoch = begin_epoch(stage).await;
    let first = begun(stage.plane.registry.db(), tenant.tenant_id.unwrap(), epoch).await.unwrap().unwrap();
    assert_eq!(first.id, rotation.id);
    let refused = stage.retry(deletion.id).await.unwrap_err();
    assert_eq!((refused.status().as_u16(), refused.kind()), (409, "operation-held"));
    assert!(refused.to_string().contains(&format!("/v1/operations/{}/retry", rotation.id)), "{refused}");
    // The deletion can be called off all the same, since nobody began it.
    let change = stage.plane.registry.change().await.unwrap();
    assert!(open(&change, On::of(&tenant).unwrap(), Kind::Rotate).await.unwrap().is_some());
    assert!(cancel_delete(&change, tenant.tenant_id.unwrap()).await.unwrap());
    drop(change);
    stage.retry(rotation.id).await.unwrap();
    assert_eq!(stage.work_until_ended(&rotation, &Faults::default()).await.state, "done");
    stage.retry(deletion.id).await.unwrap();
    assert_eq!(stage.work_until_ended(&deletion, &Faults::default()).await.state, "done");
    stage.assert_forgotten(&deletion).await;
}

/// What a node is answered that has heard of so much.
async fn followed(stage: &Stage, node: &FeedRequest, heard: i64) -> FeedAnswer {
    let (registry, heard) = (&stage.plane.registry, Revision(heard.unsigned_abs()));
    let epoch = Some(Epoch(registry.history().await.unwrap().epoch));
    let request = FeedRequest { epoch, after: heard, heard, applied: heard, ..node.clone() };
    stage.hear(&request).await;
    registry.follow(&request, stage.plane.stale_after, &CancellationToken::new()).await.unwrap()
}

/// What the doctor says of the registry itself.
async fn told_by_the_doctor(stage: &Stage) -> Vec<Finding> {
    let mut findings = Doctor::new(stage.plane.clone()).look(Position::default()).await.unwrap().findings;
    findings.retain(|it| it.kind == doctor::Kind::HistoryLost);
    findings
}

async fn no_tenant_is_deleted_while_the_registry_lacks_what_a_node_was_given(stage: &Stage) {
    let gone = stage.built("gone").await;
    let registry = &stage.plane.registry;
    let deletion = stage.delete(&gone, Status::Active).await;
    let (node, head) = (stage.behind().await, registry.history().await.unwrap().head);
    assert!(!followed(stage, &node, head - 1).await.reset);
    assert!(told_by_the_doctor(stage).await.is_empty());
    // The registry is restored, and the control plane is not told so.
    history::Entity::update_many()
        .col_expr(history::Column::Head, Expr::col(history::Column::Head).sub(1))
        .exec(registry.db())
        .await
        .unwrap();
    assert!(followed(stage, &node, head).await.reset);
    let told = told_by_the_doctor(stage).await;
    let [finding] = &told[..] else { panic!("one thing is lost: {told:?}") };
    let what = format!("revisions {head} to {head} of its history: node {} was given them", node.node);
    assert!(finding.detail.contains(&what), "{finding:?}");
    for remedy in ["--restored", "POST /v1/epoch"] {
        assert!(finding.remedy.contains(remedy), "{finding:?}");
    }
    // It was due first: a runner that does what came after it has passed it by, and so does any other.
    let waits = stage.operation(&deletion).await;
    let next = stage.create("next", None).await;
    assert_eq!(stage.work_until_ended(&next, &Faults::default()).await.state, "done");
    assert_eq!(registry.history().await.unwrap().head, head, "the registry has come to the number that it lost");
    let pace = Stage::pace(&Faults::default());
    assert!(take(registry, Uuid::new_v4(), &pace, Slots::new(8)).await.unwrap().is_empty());
    assert_eq!((stage.operation(&deletion).await, stage.status(&gone).await), (waits, Status::Deleting));
    assert_eq!(told_by_the_doctor(stage).await.len(), 1, "until it is acknowledged");

    let epoch = begin_epoch(stage).await;
    assert!(told_by_the_doctor(stage).await.is_empty());
    assert!(is_held(&stage.operation(&deletion).await, epoch));
    followed(stage, &node, head).await;
    stage.retry(deletion.id).await.unwrap();
    assert_eq!(stage.work_until_ended(&deletion, &Faults::default()).await.state, "done");
    stage.assert_forgotten(&gone).await;
}

async fn a_deletion_at_work_stops_when_the_registry_is_known_to_lack_something(stage: &Stage) {
    let gone = stage.built("gone").await;
    let (arrived, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (bell, until) = (arrived.clone(), goes_on.clone());
    let drops = |side| Point { step: "drop_database", is_undo: false, side };
    let faults = Faults::new(move |at| {
        if at == drops(Side::Before) {
            bell.notify_one();
            return Fault::Pause(until.clone());
        }
        Fault::None
    });
    let deletion = stage.delete(&gone, Status::Active).await;
    let runner = stage.runner(&faults);
    arrived.notified().await;
    history::Entity::update_many()
        .col_expr(history::Column::LostTo, Expr::value(1_000))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
    goes_on.notify_one();
    runner.stop().await;
    assert_eq!(stage.operation(&deletion).await.state, "running");
    assert!(!faults.passed().contains_key(&drops(Side::Committed)));
    stage.lapse().await;
    begin_epoch(stage).await;
    stage.retry(deletion.id).await.unwrap();
    assert_eq!(stage.work_until_ended(&deletion, &Faults::default()).await.state, "done");
    stage.assert_forgotten(&gone).await;
}
