//! Rotation: the old password works until every data plane has the new one, and never after.

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, SqlErr};
use std::time::Duration;

use secrecy::ExposeSecret;
use tenancy::route::Revision;
use uuid::Uuid;

use super::stage::{Stage, on_both};
use crate::engine::EngineKind;
use crate::provision::faults::{Fault, Faults, Side};
use crate::provision::schedule::{begin, due, order};
use crate::provision::slots::{Slots, take};
use crate::provision::{Kind, On, force, open};
use crate::registry::entities::{databases, operations};

on_both! {
    the_two_login_roles_take_turns_and_only_one_may_log_in,
    a_rotation_waits_until_every_data_plane_has_the_new_url,
    a_forced_rotation_waits_for_none_and_says_whom_it_cut_off,
    a_rotation_that_waits_can_be_forced_after_all,
    two_control_planes_that_look_at_once_rotate_a_tenant_once,
    a_tenant_whose_rotation_fails_holds_no_other_up,
    one_operation_at_a_time_is_at_work_for_a_tenant,
    credentials_that_have_become_old_are_rotated_a_few_at_a_time,
    a_tenant_that_is_deleted_meanwhile_has_nothing_to_rotate,
}

async fn database(stage: &Stage, created: &operations::Model) -> databases::Model {
    let all = databases::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    all.into_iter().find(|row| row.tenant_id == created.tenant_id.unwrap()).unwrap()
}

async fn the_two_login_roles_take_turns_and_only_one_may_log_in(stage: &Stage) {
    let created = stage.built("acme").await;
    let mut slots = Vec::new();
    for generation in 2..=4 {
        let before = stage.tenant(&created).await;
        let old = database(stage, &created).await;
        let session = service::pool::open(stage.open_url(&old).expose_secret()).await.unwrap();
        let operation = stage.rotate(&created, false).await;
        assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
        let after = stage.tenant(&created).await;
        assert_eq!(after.generation, generation);
        assert!(
            after.revision > before.revision && after.version > before.version,
            "data planes and operators hear of it"
        );
        stage.assert_credentials(&created).await;
        let row = database(stage, &created).await;
        assert!(row.rotated_at.is_some() && row.next_slot.is_none() && row.next_sealed_url.is_none());
        if stage.kind() == EngineKind::Postgres {
            assert!(session.execute_unprepared("SELECT 1").await.is_err(), "sessions of the old role were ended");
            assert!(service::pool::open(stage.open_url(&old).expose_secret()).await.is_err(), "it makes no new ones");
        }
        slots.push(row.slot);
    }
    assert_eq!(slots, ["b", "a", "b"]);
}

async fn a_rotation_waits_until_every_data_plane_has_the_new_url(stage: &Stage) {
    let created = stage.built("acme").await;
    let old = database(stage, &created).await;
    let mut node = stage.behind().await;
    let operation = stage.rotate(&created, false).await;
    let runner = stage.runner(&Faults::default());
    let waiting = loop {
        let row = stage.operation(&operation).await;
        if row.error.is_some() {
            break row;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!(waiting.state, "running");
    let error = waiting.error.unwrap();
    assert!(
        error.starts_with("await_nodes: data planes have not let go of what was before yet (1, ")
            && error.contains(&node.node.to_string()),
        "{error}"
    );
    // Old and new work side by side.
    service::pool::open(stage.open_url(&old).expose_secret()).await.unwrap().close().await.unwrap();
    let new = database(stage, &created).await;
    service::pool::open(stage.open_url(&new).expose_secret()).await.unwrap().close().await.unwrap();

    // What changes of the tenant meanwhile is not waited for.
    let switched = stage.tenant(&created).await.revision;
    let mut change = stage.plane.registry.change().await.unwrap();
    change.touch(created.tenant_id.unwrap());
    change.commit().await.unwrap();
    assert!(stage.tenant(&created).await.revision > switched);
    node.applied = Revision(switched.unsigned_abs());
    stage.hear(&node).await;
    let ended = stage.ended(&operation).await;
    runner.stop().await;
    assert_eq!((ended.state.as_str(), ended.error), ("done", None));
    stage.assert_credentials(&created).await;
}

async fn a_forced_rotation_waits_for_none_and_says_whom_it_cut_off(stage: &Stage) {
    let created = stage.built("acme").await;
    let node = stage.behind().await;
    let operation = stage.rotate(&created, true).await;
    let ended = stage.work_until_ended(&operation, &Faults::default()).await;
    assert_eq!(ended.state, "done");
    let said = ended.note.unwrap();
    assert!(
        said.starts_with("forced: data planes that had not taken the new URL yet were cut off (1): ")
            && said.contains(&node.node.to_string()),
        "{said}"
    );
    stage.assert_credentials(&created).await;
}

async fn one_operation_at_a_time_is_at_work_for_a_tenant(stage: &Stage) {
    let created = stage.built("acme").await;
    let (first, second) = (stage.rotate(&created, false).await, stage.rotate(&created, false).await);
    let (registry, pace) = (&stage.plane.registry, Stage::pace(&Faults::default()));
    let take = || take(registry, Uuid::new_v4(), &pace, Slots::new(10));
    // Two look at the same moment.
    let (one, other) = tokio::join!(take(), take());
    let held: Vec<_> = one.unwrap().into_iter().chain(other.unwrap()).collect();
    assert_eq!(held.len(), 1, "{held:?}");
    assert!(take().await.unwrap().is_empty(), "a later look finds it too");
    // Whoever overlooked the first is held to it.
    let waiting = if held[0].operation().id == first.id { &second } else { &first };
    let begun = operations::Entity::update_many()
        .col_expr(operations::Column::State, Expr::value("running"))
        .filter(operations::Column::Id.eq(waiting.id))
        .exec(registry.db())
        .await;
    assert!(matches!(begun.unwrap_err().sql_err(), Some(SqlErr::UniqueConstraintViolation(_))));

    held[0].release(registry.present()).await.unwrap();
    let runner = stage.runner(&Faults::default());
    for operation in [&first, &second] {
        assert_eq!(stage.ended(operation).await.state, "done");
    }
    runner.stop().await;
    assert_eq!(stage.tenant(&created).await.generation, 3);
    stage.assert_credentials(&created).await;
}

async fn a_tenant_that_is_deleted_meanwhile_has_nothing_to_rotate(stage: &Stage) {
    let created = stage.built("acme").await;
    let names = stage.names().await;
    let deleted = stage.delete(&created, tenancy::Status::Active).await;
    stage.work_until_ended(&deleted, &Faults::default()).await;
    let operation = stage.rotate(&created, false).await;
    let ended = stage.work_until_ended(&operation, &Faults::default()).await;
    assert_eq!(ended.state, "failed");
    assert_eq!(ended.error.as_deref(), Some("new_url: the tenant has no credentials to rotate any more"));
    assert_eq!(stage.leftovers(&names).await, [""; 0]);
}

async fn credentials_that_have_become_old_are_rotated_a_few_at_a_time(stage: &Stage) {
    let mut built = Vec::new();
    for number in 0..4 {
        let created = stage.create(&format!("acme-{number}"), None).await;
        stage.work_until_ended(&created, &Faults::default()).await;
        built.push(created);
    }
    let day = Duration::from_hours(24);
    assert_eq!(begin(&stage.plane, day).await.unwrap(), 0, "none is old");
    let db = stage.plane.registry.db();
    let age = async |created: &operations::Model, days: u32, column: databases::Column| {
        databases::Entity::update_many()
            .col_expr(column, Expr::value(chrono::Utc::now() - day * days))
            .filter(databases::Column::TenantId.eq(created.tenant_id.unwrap()))
            .exec(db)
            .await
            .unwrap();
    };
    age(&built[0], 3, databases::Column::CreatedAt).await;
    age(&built[1], 4, databases::Column::CreatedAt).await;
    age(&built[2], 2, databases::Column::RotatedAt).await;
    // Of four databases and a day of looks, one at each look: the oldest first, and none twice.
    let mut rotated = Vec::new();
    for _ in 0..4 {
        rotated.push(begin(&stage.plane, day).await.unwrap());
    }
    assert_eq!(rotated, [1, 1, 1, 0]);
    let mut all = operations::Entity::find().filter(operations::Column::Kind.eq("rotate")).all(db).await.unwrap();
    all.sort_by_key(|row| row.id);
    let order: Vec<_> = all.iter().map(|row| row.tenant_id).collect();
    assert_eq!(order, [&built[1], &built[0], &built[2]].map(|created| created.tenant_id));
    assert!(all.iter().all(|row| row.requested_by.as_deref() == Some("schedule") && !row.is_forced));
    let runner = stage.runner(&Faults::default());
    for operation in &all {
        assert_eq!(stage.ended(operation).await.state, "done");
    }
    runner.stop().await;
    assert_eq!(begin(&stage.plane, day).await.unwrap(), 0, "all are new again");
}

async fn two_control_planes_that_look_at_once_rotate_a_tenant_once(stage: &Stage) {
    let day = Duration::from_hours(24);
    let other = stage.plane_with_patience(Duration::from_secs(5));
    let created = stage.built("acme").await;
    let tenant = created.tenant_id.unwrap();
    let registry = stage.plane.registry.db();
    databases::Entity::update_many()
        .col_expr(databases::Column::CreatedAt, Expr::value(chrono::Utc::now() - day * 3))
        .filter(databases::Column::TenantId.eq(tenant))
        .exec(registry)
        .await
        .unwrap();
    // Both have looked before either orders.
    for plane in [&stage.plane, &other] {
        let due = due(plane, day).await.unwrap();
        assert_eq!(due.iter().map(|row| row.tenant_id).collect::<Vec<_>>(), [tenant]);
    }
    let orders = (0..8).map(|number| order(if number % 2 == 0 { &stage.plane } else { &other }, day, tenant));
    let ordered = futures_util::future::join_all(orders).await;
    assert_eq!(ordered.into_iter().filter(|ordered| *ordered.as_ref().unwrap()).count(), 1);
    let rotations = operations::Entity::find().filter(operations::Column::Kind.eq("rotate"));
    let all = rotations.clone().all(registry).await.unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(stage.work_until_ended(&all[0], &Faults::default()).await.state, "done");
    // One that was slow goes on with what it saw then, when all is over.
    assert!(!order(&other, day, tenant).await.unwrap(), "it has been rotated since");
    assert_eq!((rotations.all(registry).await.unwrap().len(), stage.tenant(&created).await.generation), (1, 2));
}

async fn a_rotation_that_waits_can_be_forced_after_all(stage: &Stage) {
    let created = stage.built("acme").await;
    let node = stage.behind().await;
    let operation = stage.rotate(&created, false).await;
    let runner = stage.runner(&Faults::default());
    while stage.operation(&operation).await.error.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let change = stage.plane.registry.change().await.unwrap();
    let waiting = open(&change, On::of(&created).unwrap(), Kind::Rotate).await.unwrap().unwrap();
    force(&change, waiting).await.unwrap();
    change.commit().await.unwrap();
    let ended = stage.ended(&operation).await;
    runner.stop().await;
    assert_eq!(ended.state, "done");
    assert!(ended.note.unwrap().contains(&node.node.to_string()));
    stage.assert_credentials(&created).await;
}

async fn a_tenant_whose_rotation_fails_holds_no_other_up(stage: &Stage) {
    let (first, second) = (stage.built("acme").await, stage.built("globex").await);
    let day = Duration::from_hours(24);
    for (created, days) in [(&first, 4), (&second, 3)] {
        databases::Entity::update_many()
            .col_expr(databases::Column::CreatedAt, Expr::value(chrono::Utc::now() - day * days))
            .filter(databases::Column::TenantId.eq(created.tenant_id.unwrap()))
            .exec(stage.plane.registry.db())
            .await
            .unwrap();
    }
    assert_eq!(begin(&stage.plane, day).await.unwrap(), 1);
    let all = operations::Entity::find().filter(operations::Column::Kind.eq("rotate"));
    let oldest = all.one(stage.plane.registry.db()).await.unwrap().unwrap();
    assert_eq!(oldest.tenant_id, first.tenant_id);
    let refuses = Faults::new(|point| {
        let is_hit = point.step == "new_role" && !point.is_undo && point.side == Side::Before;
        if is_hit { Fault::Refuse } else { Fault::None }
    });
    assert_eq!(stage.work_until_ended(&oldest, &refuses).await.state, "failed");
    assert_eq!(begin(&stage.plane, day).await.unwrap(), 1, "the other's turn");
    assert_eq!(begin(&stage.plane, day).await.unwrap(), 0, "neither is tried again at once");
    let all = operations::Entity::find().filter(operations::Column::Kind.eq("rotate"));
    let all = all.all(stage.plane.registry.db()).await.unwrap();
    assert!(all.len() == 2 && all.iter().any(|row| row.tenant_id == second.tenant_id));
}
