//! No server's operations fill all slots, whether it answers or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use sea_orm::sea_query::Expr;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter};
use tenancy::Status;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::stage::{Stage, on_both};
use crate::engine::{DatabaseName, EngineKind};
use crate::provision::On;
use crate::provision::breakers::Breakers;
use crate::provision::faults::{Fault, Faults, Point, Side};
use crate::provision::pace::Pace;
use crate::provision::slots::{Slots, take};
use crate::registry::entities::{databases, operations, tenants};

const ALL: usize = 8;

on_both! {
    the_slots_are_shared_by_the_servers_that_have_work,
    a_silent_server_holds_up_nobody_else,
    a_server_that_did_not_answer_is_trusted_again_once_work_on_it_is_done,
}

/// A deletion that is due on this server, of a tenant with a database there.
async fn deletion(stage: &Stage, slug: &str, server: Uuid) -> operations::Model {
    let created = stage.create(slug, None).await;
    let db = stage.plane.registry.db();
    operations::Entity::update_many()
        .col_expr(operations::Column::State, Expr::value("cancelled"))
        .filter(operations::Column::Id.eq(created.id))
        .exec(db)
        .await
        .unwrap();
    tenants::Entity::update_many()
        .col_expr(tenants::Column::ServerId, Expr::value(server))
        .filter(tenants::Column::Id.eq(created.tenant_id.unwrap()))
        .exec(db)
        .await
        .unwrap();
    let row = databases::ActiveModel {
        name: Set(DatabaseName::generate(stage.plane.registry.mark(), &mut rand::rng()).to_string()),
        server_id: Set(server),
        tenant_id: Set(created.tenant_id.unwrap()),
        slot: Set("a".to_owned()),
        generation: Set(1),
        sealed_url: Set(String::new()),
        created_at: Set(created.created_at),
        next_slot: Set(None),
        next_generation: Set(None),
        next_sealed_url: Set(None),
        rotated_at: Set(None),
        is_warm: Set(false),
        address_number: Set(1),
        next_address_number: Set(None),
    };
    row.insert(db).await.unwrap();
    stage.delete(&created, Status::Failed).await
}

/// How many of the operations that somebody holds are this server's.
async fn at_work_on(stage: &Stage, server: Uuid) -> u64 {
    let db = stage.plane.registry.db();
    let all = tenants::Entity::find().filter(tenants::Column::ServerId.eq(server)).all(db).await.unwrap();
    operations::Entity::find()
        .filter(operations::Column::TenantId.is_in(all.into_iter().map(|tenant| tenant.id)))
        .filter(operations::Column::LeaseHolder.is_not_null())
        .count(db)
        .await
        .unwrap()
}

async fn the_slots_are_shared_by_the_servers_that_have_work(stage: &Stage) {
    let busy = stage.add_server("busy", "us", stage.kind(), 1_000).await;
    for number in 0..50 {
        deletion(stage, &format!("busy-{number}"), busy).await;
    }
    let pace = Pace::default();
    let registry = &stage.plane.registry;
    let taken = async |slots: Slots| {
        let leases = take(registry, Uuid::new_v4(), &pace, slots).await.unwrap();
        leases.iter().map(|lease| On::of(lease.operation()).unwrap()).collect::<Vec<_>>()
    };
    // Nobody else has work: one slot is left for whoever comes.
    let first = taken(Slots::new(ALL)).await;
    assert_eq!((first.len(), at_work_on(stage, busy).await), (ALL - 1, ALL as u64 - 1));
    // What comes late, and has no server yet, gets that slot, whatever was due before it.
    let creation = stage.create("acme", None).await;
    let breakers = Breakers::default();
    let slots = Slots::of(registry, &breakers, ALL, first.iter().copied()).await.unwrap();
    assert_eq!(taken(slots).await, [On::of(&creation).unwrap()]);
    // Where both have work, each has half.
    for number in 0..10 {
        deletion(stage, &format!("one-{number}"), stage.server).await;
    }
    assert_eq!(taken(Slots::new(ALL)).await.len(), ALL);
    assert_eq!((at_work_on(stage, busy).await, at_work_on(stage, stage.server).await), (7 + 4, 4));
    // One that failed to answer has one slot, however many are free, and none while its one is at work.
    breakers.open(busy);
    let slots = Slots::of(registry, &breakers, ALL, std::iter::empty()).await.unwrap();
    let rest = taken(slots).await;
    assert_eq!((rest.len(), at_work_on(stage, busy).await), (1 + 6, 7 + 4 + 1));
    let slots = Slots::of(registry, &breakers, ALL, rest.iter().copied()).await.unwrap();
    assert!(taken(slots).await.is_empty());
    breakers.close(busy);
    let slots = Slots::of(registry, &breakers, ALL, std::iter::empty()).await.unwrap();
    assert_eq!(taken(slots).await.len(), ALL - 1);
}

/// As a server behind a broken network: it accepts, and never says a word.
async fn a_silent_server_holds_up_nobody_else(stage: &Stage) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silence = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            kept.push(accepted);
        }
    });
    let url = format!("postgres://admin:password@127.0.0.1:{port}/postgres").into();
    let silent = stage.add_server_at("silent", "us", EngineKind::Postgres, 1_000, &url).await;
    for number in 0..50 {
        deletion(stage, &format!("silent-{number}"), silent).await;
    }
    // Long enough for the slowest step of a busy machine.
    let runner = stage.runner_at(Pace { attempt: Duration::from_secs(5), ..Stage::pace(&Faults::default()) });
    while at_work_on(stage, silent).await < ALL as u64 - 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for slug in ["acme", "globex", "initech"] {
        let operation = stage.create(slug, Some("eu")).await;
        stage.plane.wake.ring();
        assert_eq!(stage.ended(&operation).await.state, "done");
        assert!(at_work_on(stage, silent).await < ALL as u64);
    }
    // Those that have a slot find out, and no further one is taken.
    while !stage.plane.breakers.all().contains(&silent) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    runner.kill().await;
    silence.abort();
    // Nothing of them is anywhere.
    databases::Entity::delete_many()
        .filter(databases::Column::ServerId.eq(silent))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
}

async fn a_server_that_did_not_answer_is_trusted_again_once_work_on_it_is_done(stage: &Stage) {
    let is_down = Arc::new(AtomicBool::new(true));
    let down = is_down.clone();
    let faults = Faults::new(move |at| {
        let fails = at == (Point { step: "roles", is_undo: false, side: Side::Effect }) && down.load(SeqCst);
        if fails { Fault::Unavailable } else { Fault::None }
    });
    let operation = stage.create("acme", None).await;
    assert_eq!(stage.work_until_ended(&operation, &faults).await.state, "failed");
    assert!(stage.plane.breakers.all().contains(&stage.server));
    is_down.store(false, SeqCst);
    stage.retry(operation.id).await.unwrap();
    assert_eq!(stage.work_until_ended(&operation, &faults).await.state, "done");
    assert!(stage.plane.breakers.all().is_empty());
}
