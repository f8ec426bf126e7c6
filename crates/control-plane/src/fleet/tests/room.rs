//! A server whose disk is full: its tenants' targets are tried again, and then told; the others go on.

use super::budget::bearing;
use super::*;
use crate::engine::EngineKind;
use crate::provision::tests::disk::Disk;
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
        let mut order = bearing(1);
        order.settings.attempts = 2;
        let ended = fleet.roll(&order).await;
        assert_eq!((ended.state.as_str(), fleet.versions().await), ("done", vec![4, 2]));
        let target = &fleet.targets(ended.id).await[1];
        assert_eq!((target.state.as_str(), target.attempts), ("failed", 2));
        assert!(target.error.as_deref().is_some_and(|error| error.contains("disk is full")), "{target:?}");
        disk.make_room();
        let change = fleet.plane.registry.change().await.unwrap();
        retry(&change, ended.id).await.unwrap();
        change.commit().await.unwrap();
        assert_eq!(fleet.rest_of(ended.id).await, "done");
        assert_eq!((fleet.versions().await, fleet.effects().await), (vec![4, 4], vec![1, 1]));
    })
    .await;
}
