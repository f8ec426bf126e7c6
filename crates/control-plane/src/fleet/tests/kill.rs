//! Invariant 11: whoever dies at any point of a target, nothing takes effect twice and nothing is lost.

use super::*;

on_both! {
    a_target_survives_a_kill_at_every_point,
    two_control_planes_share_a_rollout_and_do_nothing_twice,
    no_target_is_taken_by_two,
    whoever_was_taken_over_writes_nothing,
    one_that_kills_whoever_works_on_it_is_given_up,
    an_older_program_takes_nothing_that_it_does_not_contain,
    nothing_of_a_rollout_that_was_given_up_stays_open,
    what_a_dead_holder_left_of_a_failed_rollout_waits_for_its_retry,
    a_rollout_of_another_epoch_waits_until_it_is_told_to_go_on,
}

async fn a_target_survives_a_kill_at_every_point(stage: &Stage) {
    for (round, at) in ["taken", "migrated", "recorded"].into_iter().enumerate() {
        let tenants = vec![stage.built(&format!("round-{round}")).await];
        let fleet = Fleet { stage, plane: stage.plane_with_schema(Arc::new(Newer)), tenants };
        let only = Some(vec![format!("round-{round}")]);
        let order = Order { selection: Selection { tenants: only, ..Selection::default() }, ..Fleet::order() };
        let rollout = fleet.start(&order).await.unwrap();
        let stops = Stops::at(at);
        let first = Fleet::runner(fleet.plane.clone(), &stops);
        stops.reached().await;
        first.kill().await;
        fleet.lapse().await;
        let second = Fleet::runner(stage.plane_with_schema(Arc::new(Newer)), &Stops::default());
        assert_eq!(fleet.rest(rollout.id).await.state, "done", "killed when it was {at}");
        second.stop().await;
        assert_eq!((fleet.versions().await, fleet.effects().await), (vec![4], vec![1]), "killed when it was {at}");
    }
}

async fn two_control_planes_share_a_rollout_and_do_nothing_twice(stage: &Stage) {
    let fleet = Fleet::of(stage, 6).await;
    let rollout = fleet.start(&Fleet::order()).await.unwrap();
    let second = Fleet::runner(stage.plane_with_schema(Arc::new(Newer)), &Stops::default());
    let first = fleet.running();
    assert_eq!(fleet.rest(rollout.id).await.state, "done");
    first.stop().await;
    second.stop().await;
    assert_eq!((fleet.versions().await, fleet.effects().await), (vec![4; 6], vec![1; 6]));
    assert!(fleet.targets(rollout.id).await.iter().all(|target| target.attempts == 1 && target.fence == 1));
}

async fn no_target_is_taken_by_two(stage: &Stage) {
    let fleet = Fleet::of(stage, 4).await;
    let other = stage.plane_with_schema(Arc::new(Newer));
    let mut order = Fleet::order();
    (order.settings.canary, order.settings.waves, order.settings.attempts) = (Canary::Number(0), Vec::new(), 100);
    order.settings.concurrency = 3;
    let rollout = fleet.start(&order).await.unwrap();
    for round in 1..=10 {
        let take = |plane| take::take(plane, rollout.id, 4, Duration::from_secs(8));
        let (one, another) = tokio::join!(take(&fleet.plane), take(&other));
        let taken = [one.unwrap().unwrap().targets, another.unwrap().unwrap().targets].concat();
        assert_eq!(taken.len(), 3, "both together take what may be at work: {taken:?}");
        let fences: i64 = fleet.targets(rollout.id).await.iter().map(|target| target.fence).sum();
        assert_eq!(fences, 3 * round, "each was taken once a round");
        fleet.lapse().await;
    }
}

/// What came of a first attempt at a target.
fn outcome(target: &rollout_targets::Model, end: target::End) -> target::Outcome {
    target::Outcome {
        rollout: target.rollout_id,
        tenant: target.tenant_id,
        fence: target.fence,
        attempts: 1,
        is_last: false,
        has: None,
        took: Duration::ZERO,
        end,
    }
}

async fn whoever_was_taken_over_writes_nothing(stage: &Stage) {
    let fleet = Fleet::of(stage, 1).await;
    let rollout = fleet.start(&Fleet::order()).await.unwrap();
    let taken = take::take(&fleet.plane, rollout.id, 1, Duration::from_secs(8)).await.unwrap().unwrap();
    let late = target::Outcome { has: Some(7), ..outcome(&taken.targets[0].0, target::End::Done) };
    fleet.lapse().await;
    let other = stage.plane_with_schema(Arc::new(Newer));
    let again = take::take(&other, rollout.id, 1, Duration::from_secs(8)).await.unwrap().unwrap();
    assert_eq!((again.targets[0].0.fence, again.targets[0].1), (2, Some(fleet.plane.id)));
    record::record(&fleet.plane, [&late].into_iter()).await.unwrap();
    assert_eq!(fleet.targets(rollout.id).await[0].state, "running");
    assert_eq!(fleet.versions().await, [2]);
}

async fn one_that_kills_whoever_works_on_it_is_given_up(stage: &Stage) {
    let fleet = Fleet::of(stage, 1).await;
    let rollout = fleet.start(&Fleet::order()).await.unwrap();
    for _ in 0..4 {
        let stops = Stops::at("taken");
        let dies = Fleet::runner(fleet.plane.clone(), &stops);
        stops.reached().await;
        dies.kill().await;
        fleet.lapse().await;
    }
    let runner = fleet.running();
    assert_eq!(fleet.rest(rollout.id).await.state, "failed");
    runner.stop().await;
    let target = &fleet.targets(rollout.id).await[0];
    assert_eq!((target.state.as_str(), target.attempts), ("failed", 4));
    assert!(target.error.as_deref().is_some_and(|error| error.contains("did not come to an end, 4 times")));
}

async fn a_rollout_of_another_epoch_waits_until_it_is_told_to_go_on(stage: &Stage) {
    let fleet = Fleet::of(stage, 1).await;
    let rollout = fleet.start(&Fleet::order()).await.unwrap();
    fleet.plane.registry.begin_epoch(rollout.epoch).await.unwrap();
    assert!(take::running(&fleet.plane).await.unwrap().is_empty());
    assert!(take::take(&fleet.plane, rollout.id, 1, Duration::from_secs(8)).await.unwrap().is_none());
    let mut change = fleet.plane.registry.change().await.unwrap();
    resume(&mut change, rollout.id).await.unwrap();
    change.commit().await.unwrap();
    let runner = fleet.running();
    assert_eq!(fleet.rest(rollout.id).await.state, "done");
    runner.stop().await;
}

async fn an_older_program_takes_nothing_that_it_does_not_contain(stage: &Stage) {
    let fleet = Fleet::of(stage, 1).await;
    let rollout = fleet.start(&Order { version: 3, ..Fleet::order() }).await.unwrap();
    // The program of two migrations, while another is being replaced by the newer one.
    assert!(take::running(&stage.plane).await.unwrap().is_empty());
    assert_eq!(fleet.rest_of(rollout.id).await, "done");
    let down = fleet.start(&Order { version: 2, is_down: true, ..Fleet::order() }).await.unwrap();
    let taken = take::take(&stage.plane, down.id, 8, Duration::from_secs(8)).await.unwrap().unwrap();
    assert!(taken.targets.is_empty(), "what it does not contain, it cannot take back");
    assert_eq!(fleet.rest_of(down.id).await, "done");
}

async fn nothing_of_a_rollout_that_was_given_up_stays_open(stage: &Stage) {
    let fleet = Fleet::of(stage, 2).await;
    let mut order = Fleet::order();
    (order.settings.canary, order.settings.waves) = (Canary::Number(0), Vec::new());
    let rollout = fleet.start(&order).await.unwrap();
    let taken = take::take(&fleet.plane, rollout.id, 8, Duration::from_secs(8)).await.unwrap().unwrap();
    let change = fleet.plane.registry.change().await.unwrap();
    abort(&change, rollout.id).await.unwrap();
    change.commit().await.unwrap();
    // Of one somebody was in the way; of the other the holder dies.
    let target = &taken.targets[0].0;
    let outcome = outcome(target, target::End::Again("somebody was in the way".to_owned()));
    record::record(&fleet.plane, [&outcome].into_iter()).await.unwrap();
    fleet.lapse().await;
    take::sweep(&fleet.plane).await.unwrap();
    assert_eq!(fleet.states(rollout.id).await, BTreeMap::from([("skipped".to_owned(), 2)]));
    assert_eq!(fleet.roll(&order).await.state, "done", "their tenants are free for another");
}

async fn what_a_dead_holder_left_of_a_failed_rollout_waits_for_its_retry(stage: &Stage) {
    let fleet = Fleet::of(stage, 2).await;
    let mut order = Fleet::order();
    (order.settings.canary, order.settings.waves) = (Canary::Number(0), Vec::new());
    let rollout = fleet.start(&order).await.unwrap();
    let taken = take::take(&fleet.plane, rollout.id, 8, Duration::from_secs(8)).await.unwrap().unwrap();
    let target = &taken.targets[0].0;
    let failed = outcome(target, target::End::Failed("its data does not fit".to_owned()));
    record::record(&fleet.plane, [&failed].into_iter()).await.unwrap();
    assert!(take::take(&fleet.plane, rollout.id, 8, Duration::from_secs(8)).await.unwrap().is_none());
    assert_eq!(fleet.read(rollout.id).await.state, "failed");
    fleet.lapse().await;
    take::sweep(&fleet.plane).await.unwrap();
    let left = BTreeMap::from([("failed".to_owned(), 1), ("pending".to_owned(), 1)]);
    assert_eq!(fleet.states(rollout.id).await, left);
    let change = fleet.plane.registry.change().await.unwrap();
    retry(&change, rollout.id).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!((fleet.rest_of(rollout.id).await.as_str(), fleet.effects().await), ("done", vec![1, 1]));
}
