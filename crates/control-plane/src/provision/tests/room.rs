//! Servers without room: a full disk, and no connection left. A step is retried, then all is undone, and a retry succeeds
//! once there is room.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ConnectionTrait, EntityTrait};
use tokio::sync::Notify;

use super::disk::{Disk, Tablespace};
use super::stage::{Stage, in_time};
use crate::engine::EngineKind;
use crate::provision::Kind;
use crate::provision::faults::{Fault, Faults, Point, Side};
use crate::registry::entities::{operation_steps, operations, templates};

/// The steps that were tried again and again.
async fn given_up(stage: &Stage, operation: &operations::Model) -> Vec<(String, i32)> {
    let steps = operation_steps::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    let steps = steps.into_iter().filter(|step| step.operation_id == operation.id && step.attempts > 1);
    // The undo that succeeded counts too.
    steps.filter(|step| step.state == "undone" && step.error.is_some()).map(|it| (it.name, it.attempts)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_on_a_full_disk_is_retried_then_undone_and_succeeds_once_there_is_room_on_sqlite() {
    let name = "a_creation_on_a_full_disk_is_retried_then_undone_and_succeeds_once_there_is_room_on_sqlite";
    let Some(disk) = Disk::or_within_a_namespace(16 * 1024, module_path!(), name) else { return };
    let stage = Stage::sqlite().await;
    in_time(async {
        let url = format!("sqlite://{}", disk.path().display()).into();
        stage.add_server_at("small", "us", EngineKind::Sqlite, 10, &url).await;
        disk.fill();
        let operation = stage.create("acme", Some("us")).await;
        let ended = stage.work_until_ended(&operation, &Faults::default()).await;
        assert_eq!(ended.state, "failed");
        assert!(
            ended.error.as_ref().is_some_and(|error| error.contains("full") || error.contains("space")),
            "{ended:?}"
        );
        let given_up = given_up(&stage, &operation).await;
        assert!(given_up.len() == 1 && given_up[0].1 >= 5, "{given_up:?}");
        assert_eq!(std::fs::read_dir(disk.path()).unwrap().count(), 1, "nothing but the filler is left on it");
        assert_eq!(stage.tenant(&operation).await.status, "failed");
        disk.make_room();
        stage.retry(operation.id).await.unwrap();
        assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
        stage.assert_built(&operation).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_creation_on_a_full_disk_is_retried_then_undone_and_succeeds_once_there_is_room_on_postgres() {
    let what = "a creation on a full disk of a Postgres server";
    let Some(space) = Tablespace::or_not_tried(64 * 1024, what).await else { return };
    let stage = Stage::postgres().await;
    in_time(async {
        stage.keep(0).await;
        let template = templates::Entity::find().one(stage.plane.registry.db()).await.unwrap().unwrap().name;
        space.take(&template).await;
        space.disk.fill();
        let operation = stage.create("acme", None).await;
        let ended = stage.work_until_ended(&operation, &Faults::default()).await;
        assert_eq!(ended.state, "failed");
        assert!(ended.error.as_ref().is_some_and(|error| error.contains("disk is full")), "{ended:?}");
        let given_up = given_up(&stage, &operation).await;
        assert!(given_up.len() == 1 && given_up[0].0 == "create_database" && given_up[0].1 >= 5, "{given_up:?}");
        assert_eq!(stage.names().await, [""; 0]);
        space.disk.make_room();
        stage.retry(operation.id).await.unwrap();
        assert_eq!(stage.work_until_ended(&operation, &Faults::default()).await.state, "done");
        stage.assert_built(&operation).await;
    })
    .await;
    stage.clear().await;
    space.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_gets_no_connection_is_retried_and_undone_once_there_is_one_on_postgres() {
    let mut stage = Stage::postgres().await;
    // In all of its attempts, and those to undo it, a server that has no connection left is waited for.
    stage.plane = stage.plane_with_patience(Duration::from_millis(300));
    in_time(async {
        let (arrived, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (bell, until) = (arrived.clone(), goes_on.clone());
        let is_first = std::sync::atomic::AtomicBool::new(true);
        let faults = Faults::new(move |at| {
            let here = at == (Point { step: "roles", is_undo: false, side: Side::Before });
            if here && is_first.swap(false, std::sync::atomic::Ordering::SeqCst) {
                bell.notify_one();
                return Fault::Pause(until.clone());
            }
            Fault::None
        });
        let operation = stage.create("acme", None).await;
        let runner = stage.runner(&faults);
        arrived.notified().await;
        let name = stage.names().await.remove(0);
        let admin = stage.admin().await;
        // `too many connections for database`, to whomever comes.
        let limit = async |to: i32| {
            let limited = format!("ALTER DATABASE \"{name}\" CONNECTION LIMIT {to}");
            admin.execute_unprepared(&limited).await.unwrap();
        };
        limit(0).await;
        goes_on.notify_one();
        let undoing = loop {
            let row = stage.operation(&operation).await;
            // Its undo has to look whose the database is, and gets no connection either: it is kept, and shown.
            if row.state == "undoing" && row.lease_holder.is_none() {
                break row;
            }
            assert!(row.finished_at.is_none(), "{row:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let error = undoing.error.unwrap();
        assert!(error.starts_with("roles: ") && error.contains("takes no connection now"), "{error}");
        limit(-1).await;
        let ended = stage.ended(&operation).await;
        runner.stop().await;
        assert_eq!((ended.kind.as_str(), ended.state.as_str()), (Kind::Create.as_str(), "failed"));
        assert_eq!(ended.error, Some(error));
        let given_up = given_up(&stage, &operation).await;
        assert!(given_up.iter().any(|(step, attempts)| step == "roles" && *attempts >= 5), "{given_up:?}");
        assert_eq!(stage.names().await, [""; 0]);
        assert_eq!(stage.leftovers(std::slice::from_ref(&name)).await, [""; 0]);
        admin.close().await.unwrap();
    })
    .await;
    stage.clear().await;
}
