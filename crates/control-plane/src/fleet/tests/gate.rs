//! The health gate, on real rollouts. What data planes count is written as they tell it.

use tenancy::feed::CanaryCount;

use super::super::settings::Health;
use super::*;

on_both! {
    canaries_whose_requests_fail_hold_the_rollout_and_others_count_for_nothing,
    a_pause_at_the_gate_is_no_time_in_which_canaries_fared_well,
    a_rollout_of_canaries_alone_meets_the_gate_before_the_fleet_follows,
}

/// One canary, the oldest tenant, which is watched for so long.
fn watched(seconds: u32) -> Order {
    let mut order = Fleet::order();
    order.settings.health = Health { seconds, ..Health::default() };
    order
}

impl Fleet<'_> {
    /// Worked on until its canaries are watched, or it has ended.
    async fn until_watched(&self, id: Uuid) -> rollouts::Model {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let row = self.read(id).await;
            if row.watched_from.is_some() || row.state != State::Running.as_str() {
                return row;
            }
            assert!(tokio::time::Instant::now() < deadline, "nobody watches its canaries: {row:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// It has been watched since long before.
    async fn watched_for(&self, id: Uuid, time: Duration) {
        rollouts::Entity::update_many()
            .col_expr(rollouts::Column::WatchedFrom, Expr::value(chrono::Utc::now() - time))
            .filter(rollouts::Column::Id.eq(id))
            .exec(self.plane.registry.db())
            .await
            .unwrap();
    }

    async fn tell(&self, tenant: usize, requests: u64, errors: u64) {
        let count = CanaryCount { tenant: of(&self.tenants[tenant]).into(), requests, errors };
        health::count(&self.plane.registry, &[count]).await.unwrap();
    }

    async fn steer_on(&self, id: Uuid) {
        let mut change = self.plane.registry.change().await.unwrap();
        resume(&mut change, id).await.unwrap();
        change.commit().await.unwrap();
    }
}

async fn canaries_whose_requests_fail_hold_the_rollout_and_others_count_for_nothing(stage: &Stage) {
    let fleet = Fleet::of(stage, 3).await;
    let rollout = fleet.start(&watched(600)).await.unwrap();
    let runner = fleet.running();
    fleet.until_watched(rollout.id).await;
    assert_eq!(health::canaries(fleet.plane.registry.db()).await.unwrap(), [of(&fleet.tenants[0]).into()]);
    fleet.tell(0, 99, 1).await;
    fleet.tell(1, 1_000, 0).await;
    fleet.watched_for(rollout.id, Duration::from_secs(601)).await;
    let held = fleet.rest(rollout.id).await;
    runner.stop().await;
    assert_eq!((held.state.as_str(), held.is_awaited, held.wave), ("paused", true, 0));
    assert!(held.note.unwrap().starts_with("1 of 99 requests"), "of nobody else");
    assert_eq!(fleet.versions().await, [4, 2, 2]);
    fleet.steer_on(rollout.id).await;
    assert_eq!(fleet.rest_of(rollout.id).await, "done", "somebody said that it may go on");
}

async fn a_pause_at_the_gate_is_no_time_in_which_canaries_fared_well(stage: &Stage) {
    let fleet = Fleet::of(stage, 2).await;
    let rollout = fleet.start(&watched(600)).await.unwrap();
    let runner = fleet.running();
    fleet.until_watched(rollout.id).await;
    let change = fleet.plane.registry.change().await.unwrap();
    pause(&change, rollout.id, "ada").await.unwrap();
    change.commit().await.unwrap();
    fleet.watched_for(rollout.id, Duration::from_hours(2)).await;
    runner.stop().await;
    fleet.steer_on(rollout.id).await;
    let runner = fleet.running();
    let again = fleet.until_watched(rollout.id).await;
    runner.stop().await;
    assert_eq!((again.state.as_str(), again.wave), ("running", 0));
    assert!(again.watched_from.unwrap() > chrono::Utc::now() - Duration::from_mins(5), "they are watched anew");
    assert_eq!(fleet.versions().await, [4, 2]);
}

async fn a_rollout_of_canaries_alone_meets_the_gate_before_the_fleet_follows(stage: &Stage) {
    let fleet = Fleet::of(stage, 2).await;
    // Of a part, and well.
    let only = Selection { tenants: Some(vec!["tenant-1".to_owned()]), ..Selection::default() };
    let rollout = fleet.start(&Order { selection: only, ..watched(600) }).await.unwrap();
    let runner = fleet.running();
    assert_eq!(fleet.until_watched(rollout.id).await.state, "running");
    fleet.watched_for(rollout.id, Duration::from_secs(601)).await;
    assert_eq!(fleet.rest(rollout.id).await.state, "done");
    // Of all, of which one is left, and badly.
    let rollout = fleet.start(&watched(600)).await.unwrap();
    let waits = fleet.until_watched(rollout.id).await;
    assert_eq!((waits.state.as_str(), waits.has_moved_fleet), ("running", false));
    fleet.tell(0, 10, 10).await;
    fleet.watched_for(rollout.id, Duration::from_secs(601)).await;
    assert_eq!(fleet.rest(rollout.id).await.state, "paused");
    runner.stop().await;
    assert_eq!(fleet.fleet_version().await, 2, "nobody has said that it passed");
    fleet.steer_on(rollout.id).await;
    assert_eq!(fleet.rest_of(rollout.id).await, "done");
    assert_eq!(fleet.fleet_version().await, 4);
    assert_eq!(fleet.versions().await, [4, 4]);
}
