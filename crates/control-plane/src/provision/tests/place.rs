//! Placement: regions, capacities and draining servers, with others placing at the same moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use secrecy::ExposeSecret;
use tokio::sync::Notify;
use uuid::Uuid;

use super::stage::{Stage, in_time, on_both};
use crate::engine::EngineKind;
use crate::provision::faults::{Fault, Faults, Point, Side};
use crate::registry::entities::{databases, operation_steps, servers, tenants};

on_both! {
    a_server_that_fails_is_told_without_its_url_and_undone_when_it_is_back,
    a_capacity_is_never_exceeded_by_two_runners,
    a_region_is_never_left_and_the_emptiest_by_share_is_taken,
    passwords_are_long_and_random_and_in_no_debug_print,
    a_server_that_does_not_answer_is_passed_over_while_another_of_its_region_has_room,
}

async fn set(stage: &Stage, server: Uuid, column: servers::Column, value: impl Into<sea_orm::Value>) {
    servers::Entity::update_many()
        .col_expr(column, Expr::value(value))
        .filter(servers::Column::Id.eq(server))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
}

async fn a_capacity_is_never_exceeded_by_two_runners(stage: &Stage) {
    set(stage, stage.server, servers::Column::Capacity, 3).await;
    let mut operations = Vec::new();
    for index in 0..10 {
        operations.push(stage.create(&format!("acme-{index}"), None).await);
    }
    let runners = [stage.runner(&Faults::default()), stage.runner(&Faults::default())];
    let mut ends: BTreeMap<(String, Option<String>), usize> = BTreeMap::new();
    for operation in &operations {
        let ended = stage.ended(operation).await;
        *ends.entry((ended.state, ended.error)).or_default() += 1;
    }
    for runner in runners {
        runner.stop().await;
    }
    let full = "place: no open server has room: add one (POST /v1/servers), raise a capacity or open a draining one, \
                then retry";
    let expected = [(("done".to_owned(), None), 3), (("failed".to_owned(), Some(full.to_owned())), 7)];
    assert_eq!(ends, expected.into());
    assert_eq!(stage.names().await.len(), 3);
}

/// Both see room before either has taken it. SQLite's one writer keeps them apart by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_room_is_given_to_one_of_two_who_saw_it() {
    let stage = Stage::postgres().await;
    in_time(only_one_gets_the_last_room(&stage)).await;
    stage.clear().await;
}

async fn only_one_gets_the_last_room(stage: &Stage) {
    set(stage, stage.server, servers::Column::Capacity, 1).await;
    let placed = Point { step: "place", is_undo: false, side: Side::Effect };
    let (arrived, goes_on, count) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (bell, until, arrivals) = (arrived.clone(), goes_on.clone(), count.clone());
    let faults = Faults::new(move |point| {
        if point != placed || arrivals.fetch_add(1, Ordering::Relaxed) > 0 {
            return Fault::None;
        }
        bell.notify_one();
        Fault::Pause(until.clone())
    });
    let operations = [stage.create("acme", None).await, stage.create("globex", None).await];
    let runner = stage.runner(&faults);
    arrived.notified().await;
    while count.load(Ordering::Relaxed) < 2 && !stage.waits_for_a_lock().await {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    goes_on.notify_one();
    let mut states = Vec::new();
    for operation in &operations {
        states.push(stage.ended(operation).await.state);
    }
    runner.stop().await;
    states.sort();
    assert_eq!(states, ["done", "failed"]);
}

async fn a_region_is_never_left_and_the_emptiest_by_share_is_taken(stage: &Stage) {
    set(stage, stage.server, servers::Column::Capacity, 10).await;
    let large = stage.add_server("two", "eu", stage.kind(), 100).await;
    let elsewhere = stage.add_server("three", "us", stage.kind(), 1_000).await;
    let draining = stage.add_server("four", "eu", stage.kind(), 1_000).await;
    set(stage, draining, servers::Column::State, "draining").await;
    for index in 0..12 {
        let operation = stage.create(&format!("acme-{index}"), Some("eu")).await;
        assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
    }
    let rows = tenants::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    let on = |server| rows.iter().filter(|row| row.server_id == Some(server)).count();
    // One of ten is as full as ten of a hundred.
    assert_eq!((on(stage.server), on(large), on(elsewhere), on(draining)), (2, 10, 0, 0));

    let operation = stage.create("acme-far", Some("mars")).await;
    let ended = stage.work_until_ended(&operation, &Faults::default()).await;
    assert_eq!(
        ended.error.as_deref(),
        Some(
            "place: no open server in region \"mars\" has room: add one there (POST /v1/servers), raise a capacity or \
             open a draining one, then retry"
        )
    );
}

async fn a_server_that_does_not_answer_is_passed_over_while_another_of_its_region_has_room(stage: &Stage) {
    let other = stage.add_server("two", "eu", stage.kind(), 2).await;
    let elsewhere = stage.add_server("three", "us", stage.kind(), 1_000).await;
    // The emptiest by far.
    stage.plane.breakers.open(stage.server);
    let mut placed = Vec::new();
    for index in 0..3 {
        let operation = stage.create(&format!("acme-{index}"), Some("eu")).await;
        assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
        placed.push(stage.tenant(&operation).await.server_id.unwrap());
    }
    // The last goes there all the same: its region is not left, and work that is done there ends the mistrust.
    assert_eq!(placed, [other, other, stage.server]);
    assert!(placed.iter().all(|server| *server != elsewhere) && stage.plane.breakers.all().is_empty());
    // It is asked by the keeper, whoever else has no reason to.
    stage.plane.breakers.open(stage.server);
    stage.keep(0).await;
    assert!(stage.plane.breakers.all().is_empty());
}

async fn passwords_are_long_and_random_and_in_no_debug_print(stage: &Stage) {
    for slug in ["acme", "globex"] {
        let operation = stage.create(slug, None).await;
        stage.work_until_ended(&operation, &Faults::default()).await;
    }
    let rows = databases::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    let urls: Vec<_> = rows.iter().map(|row| stage.open_url(row)).collect();
    assert_ne!(urls[0].expose_secret(), urls[1].expose_secret());
    for (row, url) in rows.iter().zip(&urls) {
        let url = url::Url::parse(url.expose_secret()).unwrap();
        assert!(url.path().contains(&row.name));
        // 32 bytes in base64; SQLite knows no password.
        let length = if url.scheme() == "sqlite" { 0 } else { 43 };
        assert_eq!(url.password().unwrap_or_default().len(), length);
        assert!(!format!("{row:?}").contains(&row.sealed_url));
    }
}

async fn a_server_that_fails_is_told_without_its_url_and_undone_when_it_is_back(stage: &Stage) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let away = match stage.kind() {
        // There is no such database; a folder cannot be where a file is.
        EngineKind::Postgres => {
            let mut url = url::Url::parse(stage.admin_url().expose_secret()).unwrap();
            url.set_path("planted");
            url.into()
        }
        EngineKind::Sqlite => format!("sqlite://{}", file.path().join("planted").display()),
    };
    stage.move_server(&away.into()).await;
    let operation = stage.create("acme", None).await;
    let runner = stage.runner(&Faults::default());
    let kept = loop {
        let row = stage.operation(&operation).await;
        // Let go between two rounds of attempts, or ended where nothing had to be undone.
        if row.error.is_some() && row.lease_holder.is_none() {
            break row;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    };
    let error = kept.error.unwrap();
    assert!(error.starts_with("create_database: "), "{error}");
    let steps = operation_steps::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    assert!(!format!("{error} {steps:?}").contains("planted"), "{error} {steps:?}");
    stage.move_server(stage.admin_url()).await;
    let ended = stage.ended(&operation).await;
    runner.stop().await;
    assert_eq!((ended.state.as_str(), ended.error), ("failed", Some(error)));
    assert_eq!(stage.names().await, [""; 0]);
}
