//! The stock: what is ready goes to one tenant alone, and nothing that was made for nobody stays.

use std::time::Duration;

use chrono::Utc;
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter};
use uuid::Uuid;

use super::stage::{Stage, on_both};
use crate::engine::DatabaseName;
use crate::provision::faults::{Fault, Faults, Side};
use crate::provision::stock::{BUILDING, READY};
use crate::registry::entities::{databases, history, servers, templates, warm_databases};

on_both! {
    a_database_that_is_ready_goes_to_one_tenant_alone,
    what_a_dead_maker_left_is_dropped_and_made_anew,
    a_new_schema_version_replaces_template_and_stock,
    a_draining_server_keeps_nothing_ready,
    the_undo_of_a_claim_drops_what_was_claimed,
    a_registry_of_before_neither_takes_nor_drops_what_is_anothers_now,
    makers_that_look_at_the_same_moment_make_one_template,
}

async fn warm(stage: &Stage) -> Vec<warm_databases::Model> {
    warm_databases::Entity::find().all(stage.plane.registry.db()).await.unwrap()
}

async fn a_database_that_is_ready_goes_to_one_tenant_alone(stage: &Stage) {
    stage.keep(4).await;
    let ready: Vec<String> = warm(stage).await.into_iter().map(|row| row.name).collect();
    assert_eq!(ready.len(), 4);
    let mut operations = Vec::new();
    for number in 0..10 {
        operations.push(stage.create(&format!("acme-{number}"), None).await);
    }
    let runners = [stage.runner(&Faults::default()), stage.runner(&Faults::default())];
    for operation in &operations {
        assert_eq!(stage.ended(operation).await.state, "done");
        stage.assert_built(operation).await;
        stage.assert_credentials(operation).await;
    }
    for runner in runners {
        runner.stop().await;
    }
    let rows = databases::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    assert_eq!(rows.len(), 10);
    let taken = rows.iter().filter(|row| ready.contains(&row.name)).collect::<Vec<_>>();
    assert!(taken.len() == 4 && taken.iter().all(|row| row.is_warm), "all that was ready was used");
    assert!(warm(stage).await.is_empty());
    let names = stage.names().await;
    assert_eq!(stage.leftovers(&names).await, [""; 0]);
}

async fn what_a_dead_maker_left_is_dropped_and_made_anew(stage: &Stage) {
    let db = stage.plane.registry.db();
    let server = servers::Entity::find_by_id(stage.server).one(db).await.unwrap().unwrap();
    let engine = stage.plane.engine(&server).unwrap();
    let half_made: Vec<DatabaseName> =
        (0..2).map(|_| DatabaseName::generate(stage.plane.registry.mark(), &mut rand::rng())).collect();
    for name in &half_made {
        engine.create_database(name).await.unwrap();
    }
    let lapsed = Utc::now() - Duration::from_secs(1);
    let template = templates::ActiveModel {
        server_id: Set(stage.server),
        schema_version: Set(2),
        name: Set(half_made[0].to_string()),
        state: Set(BUILDING.to_owned()),
        lease_holder: Set(Some(Uuid::new_v4())),
        lease_until: Set(Some(lapsed)),
        created_at: Set(lapsed),
    };
    template.insert(db).await.unwrap();
    let copy = warm_databases::ActiveModel {
        name: Set(half_made[1].to_string()),
        id: Set(Uuid::new_v4()),
        server_id: Set(stage.server),
        schema_version: Set(2),
        state: Set(BUILDING.to_owned()),
        sealed_url: Set("fh1.k.unread".to_owned()),
        lease_holder: Set(Some(Uuid::new_v4())),
        lease_until: Set(Some(lapsed)),
        created_at: Set(lapsed),
    };
    copy.insert(db).await.unwrap();
    stage.keep(1).await;
    let names: Vec<String> = half_made.iter().map(ToString::to_string).collect();
    assert_eq!(stage.leftovers(&names).await, [""; 0]);
    let stock = stage.stock().await;
    assert!(stock.len() == 2 && !stock.iter().any(|name| names.contains(name)), "{stock:?}");
    let operation = stage.create("acme", None).await;
    assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    stage.assert_built(&operation).await;
}

async fn a_new_schema_version_replaces_template_and_stock(stage: &Stage) {
    let fleet = async |version: i32| {
        let moved = history::Entity::update_many().col_expr(history::Column::SchemaVersion, Expr::value(version));
        moved.exec(stage.plane.registry.db()).await.unwrap();
    };
    fleet(1).await;
    stage.keep(2).await;
    let before = stage.stock().await;
    fleet(2).await;
    // Nobody gets what is of before, whether the keeper has come by or not.
    let operation = stage.create("acme", None).await;
    assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    stage.assert_built(&operation).await;
    assert!(!before.contains(&stage.names().await[0]));
    stage.keep(2).await;
    let after = stage.stock().await;
    assert!(after.len() == 3 && !after.iter().any(|name| before.contains(name)), "{before:?} {after:?}");
    assert!(warm(stage).await.iter().all(|row| row.schema_version == 2 && row.state == READY));
    assert_eq!(stage.leftovers(&before).await, [""; 0]);
}

async fn a_draining_server_keeps_nothing_ready(stage: &Stage) {
    stage.keep(2).await;
    let names = stage.stock().await;
    servers::Entity::update_many()
        .col_expr(servers::Column::State, Expr::value("draining"))
        .filter(servers::Column::Id.eq(stage.server))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
    stage.keep(2).await;
    assert!(warm(stage).await.is_empty());
    assert_eq!(stage.leftovers(&names).await, [""; 0]);
}

async fn the_undo_of_a_claim_drops_what_was_claimed(stage: &Stage) {
    stage.keep(1).await;
    let names = stage.stock().await;
    let operation = stage.create("acme", None).await;
    let faults = Faults::new(|point| {
        let is_hit = point.step == "stamp" && !point.is_undo && point.side == Side::Before;
        if is_hit { Fault::Refuse } else { Fault::None }
    });
    assert_eq!(stage.work_until_ended(&operation, &faults).await.state, "failed");
    assert_eq!(stage.names().await, [""; 0]);
    assert_eq!(stage.leftovers(&names).await, [""; 0]);
    assert_eq!(stage.tenant(&operation).await.schema_version, 0);
    stage.retry(operation.id).await.unwrap();
    assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    stage.assert_built(&operation).await;
}

async fn makers_that_look_at_the_same_moment_make_one_template(stage: &Stage) {
    tokio::join!(stage.keep(2), stage.keep(2), stage.keep(2));
    let db = stage.plane.registry.db();
    let all = templates::Entity::find().all(db).await.unwrap();
    assert!(all.len() == 1 && all[0].state == READY, "{all:?}");
    // Two may each make the last one that is missing; none is forgotten.
    let stock = stage.stock().await;
    assert_eq!(stage.leftovers(&stock).await, [""; 0]);
}

/// As after a restore: the registry believes that databases are ready, or half made, which tenants have that it forgot.
async fn a_registry_of_before_neither_takes_nor_drops_what_is_anothers_now(stage: &Stage) {
    stage.keep(2).await;
    let db = stage.plane.registry.db();
    let server = servers::Entity::find_by_id(stage.server).one(db).await.unwrap().unwrap();
    let engine = stage.plane.engine(&server).unwrap();
    let anothers = warm(stage).await;
    for row in &anothers {
        let entered = engine.enter(&row.name.parse().unwrap()).await.unwrap();
        entered.stamp(tenancy::TenantId::generate()).await.unwrap();
        entered.leave().await.unwrap();
    }
    warm_databases::Entity::update_many()
        .col_expr(warm_databases::Column::State, Expr::value(BUILDING))
        .col_expr(warm_databases::Column::LeaseUntil, Expr::value(Utc::now() - Duration::from_secs(1)))
        .filter(warm_databases::Column::Name.eq(anothers[1].name.as_str()))
        .exec(db)
        .await
        .unwrap();
    let operation = stage.create("acme", None).await;
    let ended = stage.work_until_ended(&operation, &Faults::default()).await;
    assert_eq!(ended.state, "failed");
    assert_eq!(ended.error.unwrap(), "stamp: the database is stamped for another tenant; it is not touched");
    stage.keep(0).await;
    assert!(warm(stage).await.is_empty());
    for row in &anothers {
        let name: DatabaseName = row.name.parse().unwrap();
        assert!(engine.has_database(&name).await.unwrap(), "it is left for its tenant");
        engine.drop_database(&name).await.unwrap();
    }
}
