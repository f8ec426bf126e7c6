//! Whoever takes work over ends the sessions of the holder before, and knows whether they ended.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use sea_orm::{ConnectionTrait, DatabaseConnection, EntityTrait, Statement};
use tokio::sync::Notify;

use super::stage::{Stage, in_time};
use crate::engine::Engine;
use crate::provision::faults::{Fault, Faults, Point, Side};
use crate::registry::entities::servers;

/// How the stage's server is worked by this plane.
async fn engine(stage: &Stage, plane: &crate::plane::Plane) -> Arc<dyn Engine> {
    let server = servers::Entity::find_by_id(stage.server).one(stage.plane.registry.db()).await.unwrap().unwrap();
    plane.engine(&server).unwrap()
}

async fn sessions_of(admin: &DatabaseConnection, plane: &crate::plane::Plane) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = $1";
    let name = format!("freehold {}", plane.id);
    let query = Statement::from_sql_and_values(admin.get_database_backend(), sql, [name.into()]);
    admin.query_all_raw(query).await.unwrap().into_iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
}

fn signal(process: i32, signal: &str) {
    assert!(Command::new("kill").arg(signal).arg(process.to_string()).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_does_not_end_is_not_taken_for_ended() {
    let stage = Stage::postgres().await;
    in_time(told_of_what_goes_on(&stage)).await;
    stage.clear().await;
}

async fn told_of_what_goes_on(stage: &Stage) {
    engine(stage, &stage.plane).await.check().await.unwrap();
    let admin = stage.admin().await;
    let sessions = sessions_of(&admin, &stage.plane).await;
    assert!(!sessions.is_empty());
    let other = stage.plane_with_keys("k", &["k"]);
    let other = engine(stage, &other).await;
    for session in &sessions {
        signal(*session, "-STOP");
    }
    let ended = other.end_sessions_of(stage.plane.id).await;
    for session in &sessions {
        signal(*session, "-CONT");
    }
    let error = ended.unwrap_err();
    assert!(error.is_unavailable() && error.to_string().contains("still go on"), "{error}");
    other.end_sessions_of(stage.plane.id).await.unwrap();
    assert!(sessions_of(&admin, &stage.plane).await.is_empty());
    other.end_sessions_of(stage.plane.id).await.unwrap();
    admin.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_well_bears_the_end_of_its_sessions() {
    let stage = Stage::postgres().await;
    in_time(bears_their_end(&stage)).await;
    stage.clear().await;
}

async fn bears_their_end(stage: &Stage) {
    let other = stage.plane_with_keys("k", &["k"]);
    for step in ["create_database", "roles", "migrate", "stamp", "seed"] {
        let (arrived, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (bell, until, is_first) = (arrived.clone(), goes_on.clone(), AtomicBool::new(true));
        let faults = Faults::new(move |at| {
            let here = at == (Point { step, is_undo: false, side: Side::Before });
            if here && is_first.swap(false, SeqCst) {
                bell.notify_one();
                return Fault::Pause(until.clone());
            }
            Fault::None
        });
        let operation = stage.create(&step.replace('_', "-"), None).await;
        let runner = stage.runner(&faults);
        arrived.notified().await;
        engine(stage, &other).await.end_sessions_of(stage.plane.id).await.unwrap();
        goes_on.notify_one();
        let ended = stage.ended(&operation).await;
        runner.stop().await;
        assert_eq!((ended.state.as_str(), ended.error), ("done", None), "{step}");
        stage.assert_built(&operation).await;
    }
}
