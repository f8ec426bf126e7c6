//! A server whose disk is full: its tenants' targets are tried again, and then told; the others go on.

use super::budget::bearing;
use super::*;
use crate::engine::EngineKind;
use crate::provision::tests::disk::{Disk, Tablespace};
use crate::provision::tests::stage::in_time;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_on_a_full_disk_is_told_and_is_done_once_there_is_room_on_sqlite() {
    let name = "a_target_on_a_full_disk_is_told_and_is_done_once_there_is_room_on_sqlite";
    let Some(disk) = Disk::or_within_a_namespace(16 * 1024, module_path!(), name) else { return };
    let stage = Stage::sqlite().await;
    in_time(async {
        let mut fleet = Fleet::of(&stage, 1).await;
        let url = format!("sqlite://{}", disk.path().display()).into();
        stage.add_server_at("small", "us", EngineKind::Sqlite, 10, &url).await;
        fleet.tenants.push(stage.built_in("on-it", Some("us")).await);
        disk.fill();
        is_told_and_is_done_once_there_is_room(&fleet, &disk).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_on_a_full_disk_is_told_and_is_done_once_there_is_room_on_postgres() {
    let what = "a fleet's target on a full disk of a Postgres server";
    let Some(space) = Tablespace::or_not_tried(64 * 1024, what).await else { return };
    let stage = Stage::postgres().await;
    in_time(async {
        let fleet = Fleet::of(&stage, 2).await;
        space.take(fleet.database(&fleet.tenants[1]).await.1.as_str()).await;
        space.disk.fill();
        is_told_and_is_done_once_there_is_room(&fleet, &space.disk).await;
    })
    .await;
    stage.clear().await;
    space.remove().await;
}

/// Of two tenants, the second one's database is on the full disk.
async fn is_told_and_is_done_once_there_is_room(fleet: &Fleet<'_>, disk: &Disk) {
    let mut order = bearing(1);
    order.settings.attempts = 2;
    let ended = fleet.roll(&order).await;
    assert_eq!((ended.state.as_str(), fleet.versions().await), ("done", vec![4, 2]));
    let target = fleet.targets(ended.id).await.into_iter().find(|target| target.tenant_id == of(&fleet.tenants[1]));
    let target = target.unwrap();
    assert_eq!((target.state.as_str(), target.attempts), ("failed", 2));
    assert!(target.error.as_deref().is_some_and(|error| error.contains("disk is full")), "{target:?}");
    disk.make_room();
    let change = fleet.plane.registry.change().await.unwrap();
    retry(&change, ended.id).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(fleet.rest_of(ended.id).await, "done");
    assert_eq!((fleet.versions().await, fleet.effects().await), (vec![4, 4], vec![1, 1]));
}
