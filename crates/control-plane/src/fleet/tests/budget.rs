//! What fails, and when that is too much.

use super::*;

on_both! {
    the_canary_that_fails_stops_everything,
    what_the_budget_bears_does_not_stop_it_and_is_told,
    the_spent_budget_lets_nothing_new_begin_and_a_retry_goes_on,
    a_panic_is_the_failure_of_one_target,
    a_database_that_is_gone_is_tried_again_and_then_told,
    a_database_of_another_tenant_is_not_touched,
    a_suspended_tenant_is_migrated_and_a_deleted_one_is_not,
}

const BAD: &str = "UPDATE notes SET text = 'bad'";

pub(super) fn bearing(targets: u32) -> Order {
    let mut order = Fleet::order();
    order.settings.budget = Budget { targets: Some(targets), percent: None };
    order
}

async fn the_canary_that_fails_stops_everything(stage: &Stage) {
    let fleet = Fleet::of(stage, 2).await;
    fleet.execute(&fleet.tenants[0], BAD).await;
    let ended = fleet.roll(&bearing(100)).await;
    assert_eq!(ended.state, "failed");
    assert!(ended.note.unwrap().contains("1 of 1 canaries failed, and none may"));
    assert_eq!(fleet.versions().await, [2, 2]);
    assert_eq!(fleet.fleet_version().await, 2);
    let targets = fleet.targets(ended.id).await;
    assert_eq!((targets[0].state.as_str(), targets[0].attempts, targets[1].state.as_str()), ("failed", 1, "pending"));
    assert!(targets[0].error.as_deref().is_some_and(|error| error.contains("third")), "{targets:?}");
}

async fn what_the_budget_bears_does_not_stop_it_and_is_told(stage: &Stage) {
    let fleet = Fleet::of(stage, 4).await;
    fleet.execute(&fleet.tenants[2], BAD).await;
    let ended = fleet.roll(&bearing(1)).await;
    assert_eq!(ended.state, "done");
    assert!(ended.note.as_deref().unwrap().contains("1 of its targets failed"), "{ended:?}");
    assert_eq!(fleet.versions().await, [4, 4, 2, 4]);
}

async fn the_spent_budget_lets_nothing_new_begin_and_a_retry_goes_on(stage: &Stage) {
    let fleet = Fleet::of(stage, 4).await;
    fleet.execute(&fleet.tenants[1], BAD).await;
    let ended = fleet.roll(&bearing(0)).await;
    assert_eq!(ended.state, "failed");
    assert!(ended.note.unwrap().contains("1 of 4 targets failed, and 0 may"));
    assert_eq!(fleet.versions().await, [4, 2, 2, 2], "the last wave has not begun");
    fleet.execute(&fleet.tenants[1], "UPDATE notes SET text = 'good'").await;
    let change = fleet.plane.registry.change().await.unwrap();
    retry(&change, ended.id).await.unwrap();
    change.commit().await.unwrap();
    let runner = fleet.running();
    assert_eq!(fleet.rest(ended.id).await.state, "done");
    runner.stop().await;
    assert_eq!((fleet.versions().await, fleet.effects().await), (vec![4; 4], vec![1; 4]));
}

async fn a_panic_is_the_failure_of_one_target(stage: &Stage) {
    let fleet = Fleet::of(stage, 3).await;
    fleet.execute(&fleet.tenants[1], "UPDATE notes SET text = 'a panic'").await;
    let ended = fleet.roll(&bearing(1)).await;
    assert_eq!((ended.state.as_str(), fleet.versions().await), ("done", vec![4, 2, 4]));
    assert!(fleet.targets(ended.id).await[1].error.as_deref().is_some_and(|error| error.contains("panicked")));
}

async fn a_database_that_is_gone_is_tried_again_and_then_told(stage: &Stage) {
    let fleet = Fleet::of(stage, 3).await;
    let (engine, name) = fleet.database(&fleet.tenants[1]).await;
    engine.drop_database(&name).await.unwrap();
    let mut order = bearing(1);
    order.settings.attempts = 2;
    let ended = fleet.roll(&order).await;
    assert_eq!((ended.state.as_str(), fleet.versions().await), ("done", vec![4, 2, 4]));
    let target = &fleet.targets(ended.id).await[1];
    assert_eq!(target.state, "failed");
    assert!(target.error.is_some());
}

async fn a_database_of_another_tenant_is_not_touched(stage: &Stage) {
    let fleet = Fleet::of(stage, 2).await;
    let other = format!("UPDATE freehold_stamp SET tenant_id = '{}'", Uuid::now_v7());
    fleet.execute(&fleet.tenants[1], &other).await;
    let ended = fleet.roll(&bearing(1)).await;
    let target = &fleet.targets(ended.id).await[1];
    assert_eq!((target.state.as_str(), target.attempts), ("failed", 1));
    assert!(target.error.as_deref().is_some_and(|error| error.contains("is stamped for another")), "{target:?}");
}

async fn a_suspended_tenant_is_migrated_and_a_deleted_one_is_not(stage: &Stage) {
    let fleet = Fleet::of(stage, 2).await;
    let status = |tenant: &operations::Model, to: &'static str| {
        tenants::Entity::update_many()
            .col_expr(tenants::Column::Status, Expr::value(to))
            .filter(tenants::Column::Id.eq(of(tenant)))
            .exec(fleet.plane.registry.db())
    };
    status(&fleet.tenants[0], "suspended").await.unwrap();
    let rollout = fleet.start(&Fleet::order()).await.unwrap();
    // Between the order and its turn.
    status(&fleet.tenants[1], "deleted").await.unwrap();
    let runner = fleet.running();
    assert_eq!(fleet.rest(rollout.id).await.state, "done");
    runner.stop().await;
    assert_eq!(fleet.versions().await, [4, 2]);
    let ended: Vec<_> = fleet.targets(rollout.id).await.into_iter().map(|target| target.state).collect();
    assert_eq!(ended, ["done", "skipped"]);
}
