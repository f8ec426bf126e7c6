//! What a rollout does to a fleet that is well.

use super::*;
use crate::engine::EngineKind;
use crate::fleet::take::take;
use crate::registry::entities::{nodes, servers};

on_both! {
    every_tenant_is_brought_to_the_version_wave_by_wave,
    nothing_to_do_is_done_at_once_and_no_database_is_entered,
    a_rollout_of_a_part_leaves_the_fleet_where_it_is,
    the_fleet_follows_once_the_canaries_have_passed,
    a_tenant_that_is_built_meanwhile_has_the_version_in_the_end,
    a_fleet_goes_back_where_its_migrations_allow_it,
    a_database_goes_back_only_when_data_planes_have_let_go,
    no_more_targets_are_taken_on_a_server_than_its_reserve_has_room_for,
}

async fn every_tenant_is_brought_to_the_version_wave_by_wave(stage: &Stage) {
    let fleet = Fleet::of(stage, 4).await;
    let before: Vec<_> = [stage.tenant(&fleet.tenants[0]).await, stage.tenant(&fleet.tenants[3]).await].into();
    let ended = fleet.roll(&Fleet::order()).await;
    assert_eq!((ended.state.as_str(), ended.note.as_deref(), ended.wave), ("done", None, 2));
    assert_eq!(fleet.versions().await, [4, 4, 4, 4]);
    assert_eq!(fleet.effects().await, [1, 1, 1, 1]);
    let waves = fleet.waves(ended.id).await;
    let sizes: Vec<_> = waves.iter().map(|wave| (wave.kind.as_str(), wave.size)).collect();
    assert_eq!(sizes, [("canary", 1), ("wave", 1), ("wave", 2)]);
    assert!(waves.iter().all(|wave| wave.opened_at.is_some() && wave.ended_at >= wave.opened_at));
    assert!(waves[0].ended_at <= waves[1].opened_at && waves[1].ended_at <= waves[2].opened_at);
    let targets = fleet.targets(ended.id).await;
    // The oldest first.
    assert_eq!((targets[0].tenant_id, targets[0].wave), (of(&fleet.tenants[0]), 0));
    for target in &targets {
        assert_eq!(
            (target.state.as_str(), target.attempts, target.version_before, target.version_after),
            ("done", 1, 2, Some(4))
        );
        assert!(target.lease_holder.is_none() && target.duration_ms.is_some() && target.finished_at.is_some());
    }
    // Data planes hear of it.
    let route = stage.route(&fleet.tenants[3]).await.unwrap();
    assert_eq!(route.schema_version, 4);
    assert!(route.revision.0 > before[1].revision.unsigned_abs());
    assert_eq!(fleet.fleet_version().await, 4);
}

async fn nothing_to_do_is_done_at_once_and_no_database_is_entered(stage: &Stage) {
    let fleet = Fleet::of(stage, 1).await;
    // A server that does not answer.
    let nowhere = match stage.kind() {
        EngineKind::Sqlite => "sqlite:///nowhere",
        EngineKind::Postgres => "postgres://a:b@127.0.0.1:1/postgres",
    };
    stage.move_server(&nowhere.into()).await;
    let order = Order { version: 2, ..Fleet::order() };
    let rollout = fleet.start(&order).await.unwrap();
    assert_eq!((rollout.state.as_str(), rollout.already, rollout.finished_at.is_some()), ("done", 1, true));
    assert_eq!(fleet.targets(rollout.id).await, []);
    stage.move_server(stage.admin_url()).await;
}

async fn a_rollout_of_a_part_leaves_the_fleet_where_it_is(stage: &Stage) {
    let fleet = Fleet::of(stage, 3).await;
    let only = vec!["tenant-1".to_owned(), of(&fleet.tenants[2]).to_string()];
    let order = Order { selection: Selection { tenants: Some(only), ..Selection::default() }, ..Fleet::order() };
    let ended = fleet.roll(&order).await;
    assert_eq!((ended.state.as_str(), ended.already), ("done", 0));
    assert_eq!(fleet.versions().await, [2, 4, 4]);
    assert_eq!(fleet.fleet_version().await, 2);
    // The rest later.
    let ended = fleet.roll(&Fleet::order()).await;
    assert_eq!((ended.state.as_str(), ended.already), ("done", 2));
    assert_eq!(fleet.versions().await, [4, 4, 4]);
    assert_eq!(fleet.fleet_version().await, 4);
}

async fn the_fleet_follows_once_the_canaries_have_passed(stage: &Stage) {
    let fleet = Fleet::of(stage, 2).await;
    let mut order = Fleet::order();
    order.settings.confirm = true;
    order.settings.canary = Canary::Tenants(vec!["tenant-1".to_owned()]);
    let paused = fleet.roll(&order).await;
    assert_eq!((paused.state.as_str(), paused.is_awaited), ("paused", true));
    assert_eq!(fleet.versions().await, [2, 4], "the canary that was named");
    assert_eq!(fleet.fleet_version().await, 2, "nobody has said that it passed");
    let mut change = fleet.plane.registry.change().await.unwrap();
    resume(&mut change, paused.id).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(fleet.fleet_version().await, 4);
    let runner = fleet.running();
    assert_eq!(fleet.rest(paused.id).await.state, "done");
    runner.stop().await;
    assert_eq!(fleet.versions().await, [4, 4]);
}

async fn a_tenant_that_is_built_meanwhile_has_the_version_in_the_end(stage: &Stage) {
    let fleet = Fleet::of(stage, 1).await;
    let rollout = fleet.start(&Fleet::order()).await.unwrap();
    // Built by the old program, and at its version.
    let late = stage.built("late").await;
    assert_eq!(stage.tenant(&late).await.schema_version, 2);
    let runner = fleet.running();
    assert_eq!(fleet.rest(rollout.id).await.state, "done");
    runner.stop().await;
    assert_eq!(stage.tenant(&late).await.schema_version, 4);
    let waves = fleet.waves(rollout.id).await;
    assert_eq!(waves.last().map(|wave| wave.kind.as_str()), Some("stragglers"));
}

async fn a_fleet_goes_back_where_its_migrations_allow_it(stage: &Stage) {
    let fleet = Fleet::of(stage, 2).await;
    assert_eq!(fleet.roll(&Order { version: 3, ..Fleet::order() }).await.state, "done");
    assert_eq!(fleet.effects().await, [1, 1]);
    let refused = fleet.start(&Order { version: 2, ..Fleet::order() }).await.unwrap_err();
    assert_eq!((refused.status().as_u16(), refused.errors()[0].field.as_str()), (422, "version"));
    let ended = fleet.roll(&Order { version: 2, is_down: true, ..Fleet::order() }).await;
    assert_eq!((ended.state.as_str(), fleet.versions().await, fleet.fleet_version().await), ("done", vec![2, 2], 2));
    assert_eq!(fleet.effects().await, [0, 0]);
}

async fn a_database_goes_back_only_when_data_planes_have_let_go(stage: &Stage) {
    let fleet = Fleet::of(stage, 1).await;
    assert_eq!(fleet.roll(&Order { version: 3, ..Fleet::order() }).await.state, "done");
    let node = stage.behind().await;
    let mut order = Order { version: 2, is_down: true, ..Fleet::order() };
    order.settings.attempts = 1;
    let ended = fleet.roll(&order).await;
    assert_eq!((ended.state.as_str(), fleet.effects().await), ("failed", vec![1]), "it has what the node may ask for");
    let target = &fleet.targets(ended.id).await[0];
    assert!(target.error.as_deref().is_some_and(|error| error.contains("have not let go")), "{target:?}");
    assert_eq!(fleet.versions().await, [3], "the registry tells the truth");
    // It applies what it is told from here on.
    let later = fleet.plane.registry.history().await.unwrap().head + 100;
    nodes::Entity::update_many()
        .col_expr(nodes::Column::Applied, Expr::value(later))
        .filter(nodes::Column::Id.eq(node.node.as_uuid()))
        .exec(fleet.plane.registry.db())
        .await
        .unwrap();
    let change = fleet.plane.registry.change().await.unwrap();
    retry(&change, ended.id).await.unwrap();
    change.commit().await.unwrap();
    let runner = fleet.running();
    assert_eq!(fleet.rest(ended.id).await.state, "done");
    runner.stop().await;
    assert_eq!((fleet.versions().await, fleet.effects().await), (vec![2], vec![0]));
}

async fn no_more_targets_are_taken_on_a_server_than_its_reserve_has_room_for(stage: &Stage) {
    let fleet = Fleet::of(stage, 3).await;
    let reserve = servers::Entity::update_many().col_expr(servers::Column::ControlReserve, Expr::value(1));
    reserve.exec(fleet.plane.registry.db()).await.unwrap();
    let mut order = Fleet::order();
    (order.settings.canary, order.settings.waves) = (Canary::Number(0), Vec::new());
    let rollout = fleet.start(&order).await.unwrap();
    let taken = take(&fleet.plane, rollout.id, 16, Duration::from_secs(8)).await.unwrap().unwrap();
    // Files have no limit.
    let most = if stage.kind() == EngineKind::Postgres { 1 } else { 3 };
    assert_eq!(taken.targets.len(), most);
}
