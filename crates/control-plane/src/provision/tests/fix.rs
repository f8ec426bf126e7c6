//! Fixes are operations: they survive a kill at every point, keep other work of their tenant waiting, and end with a word.

use chrono::Utc;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::kill::{SIDES, die_at, go_on};
use super::stage::{Stage, names_of, of, on_both};
use crate::engine::DatabaseName;
use crate::provision::faults::{Faults, Point, Side};
use crate::provision::slots::{Slots, take};
use crate::provision::{Kind, On, Order, enqueue};
use crate::registry::entities::{operations, servers, templates, tenants};

on_both! {
    a_fix_of_a_tenant_survives_a_kill_at_every_point,
    a_fix_on_a_server_survives_a_kill_at_every_point,
    other_work_of_the_tenant_waits_for_its_fix,
    a_fix_of_what_its_server_does_not_let_it_fix_fails_and_says_why,
}

async fn fix(stage: &Stage, on: On) -> operations::Model {
    let change = stage.plane.registry.change().await.unwrap();
    let (run_after, requested_by) = (Utc::now(), "a test".to_owned());
    let order = Order { kind: Kind::Fix, on, run_after, is_forced: false, requested_by };
    let operation = enqueue(&change, order).await.unwrap();
    change.commit().await.unwrap();
    operation
}

async fn set_schema_version(stage: &Stage, tenant: Uuid, version: i32) {
    tenants::Entity::update_many()
        .col_expr(tenants::Column::SchemaVersion, Expr::value(version))
        .filter(tenants::Column::Id.eq(tenant))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
}

async fn a_fix_of_a_tenant_survives_a_kill_at_every_point(stage: &Stage) {
    let created = stage.built("acme").await;
    let mut kills = 0;
    for step in names_of(Kind::Fix) {
        for side in SIDES {
            set_schema_version(stage, of(&created), 1).await;
            let before = stage.route(&created).await.unwrap().revision;
            let operation = fix(stage, On::of(&created).unwrap()).await;
            let first = die_at(stage, Point { step, is_undo: false, side }, None).await;
            let ended = go_on(stage, &operation, &first, None).await;
            assert_eq!((ended.state.as_str(), ended.error), ("done", None), "{step} {side:?}");
            assert_eq!(stage.tenant(&created).await.schema_version, 2);
            assert!(stage.route(&created).await.unwrap().revision > before, "data planes are told");
            kills += 1;
        }
    }
    assert_eq!(kills, 3);
}

async fn a_fix_on_a_server_survives_a_kill_at_every_point(stage: &Stage) {
    stage.built("acme").await;
    let db = stage.plane.registry.db();
    let mut kills = 0;
    for step in ["fix_places", "fix_stock", "fix_strays"] {
        for side in SIDES {
            stage.keep(1).await;
            let server = servers::Entity::find_by_id(stage.server).one(db).await.unwrap().unwrap();
            let engine = stage.plane.engine(&server).unwrap();
            let template = templates::Entity::find().one(db).await.unwrap().unwrap().name;
            engine.drop_database(&template.parse().unwrap()).await.unwrap();
            let stray = DatabaseName::generate(stage.plane.registry.mark(), &mut rand::rng());
            engine.create_database(&stray).await.unwrap();
            let wrong = servers::Entity::update_many().col_expr(servers::Column::Placed, Expr::value(7));
            wrong.exec(db).await.unwrap();

            let operation = fix(stage, On::Server(stage.server)).await;
            let first = die_at(stage, Point { step, is_undo: false, side }, None).await;
            let ended = go_on(stage, &operation, &first, None).await;
            assert_eq!((ended.state.as_str(), ended.error), ("done", None), "{step} {side:?}");
            let server = servers::Entity::find_by_id(stage.server).one(db).await.unwrap().unwrap();
            assert_eq!(server.placed, 1);
            assert!(!engine.has_database(&stray).await.unwrap());
            let all = templates::Entity::find().all(db).await.unwrap();
            assert!(all.len() == 1 && all[0].name != template, "{all:?}");
            assert!(engine.has_database(&all[0].name.parse().unwrap()).await.unwrap());
            kills += 1;
        }
    }
    assert_eq!(kills, 9);
}

async fn other_work_of_the_tenant_waits_for_its_fix(stage: &Stage) {
    let created = stage.built("acme").await;
    let other = stage.built("globex").await;
    let fixes = [fix(stage, On::of(&created).unwrap()).await, fix(stage, On::Server(stage.server)).await];
    let registry = &stage.plane.registry;
    let pace = Stage::pace(&Faults::default());
    let taken = async || {
        let leases = take(registry, Uuid::new_v4(), &pace, Slots::new(8)).await.unwrap();
        leases.iter().map(|lease| lease.operation().id).collect::<Vec<_>>()
    };
    assert_eq!(taken().await, fixes.clone().map(|fix| fix.id));
    stage.rotate(&created, false).await;
    fix(stage, On::Server(stage.server)).await;
    let elsewhere = stage.rotate(&other, false).await;
    assert_eq!(taken().await, [elsewhere.id], "one at a time of a tenant, and on a server");
    stage.lapse().await;
    for operation in fixes {
        assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    }
}

async fn a_fix_of_what_its_server_does_not_let_it_fix_fails_and_says_why(stage: &Stage) {
    use crate::provision::faults::Fault;
    let created = stage.built("acme").await;
    let faults = Faults::new(|point| {
        let is_hit = point.step == "fix_tenant" && !point.is_undo && point.side == Side::Before;
        if is_hit { Fault::Unavailable } else { Fault::None }
    });
    let operation = fix(stage, On::of(&created).unwrap()).await;
    let ended = stage.work_until_ended(&operation, &faults).await;
    assert_eq!(ended.state, "failed");
    assert_eq!(ended.error.as_deref(), Some("fix_tenant: a passing fault of the test"));
    assert_eq!(stage.tenant(&created).await.status, "active", "the tenant is as it was");
}
