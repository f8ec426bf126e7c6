//! What a rollout is told while it is under way.

use super::*;

on_both! {
    a_pause_lets_nothing_new_begin_and_a_resume_goes_on,
    what_is_given_up_is_skipped_and_what_is_in_flight_finishes,
    what_makes_no_sense_is_refused,
}

async fn told(
    fleet: &Fleet<'_>,
    what: impl AsyncFnOnce(&mut crate::registry::change::Change) -> Result<rollouts::Model, Problem>,
) -> Result<rollouts::Model, Problem> {
    let mut change = fleet.plane.registry.change().await?;
    let row = what(&mut change).await?;
    change.commit().await?;
    Ok(row)
}

async fn a_pause_lets_nothing_new_begin_and_a_resume_goes_on(stage: &Stage) {
    let fleet = Fleet::of(stage, 2).await;
    let rollout = fleet.start(&Fleet::order()).await.unwrap();
    let paused = told(&fleet, async |change| pause(change, rollout.id, "ada").await).await.unwrap();
    assert_eq!((paused.state.as_str(), paused.note.as_deref()), ("paused", Some("paused by ada")));
    assert!(take::take(&fleet.plane, rollout.id, 8, Duration::from_secs(8)).await.unwrap().is_none());
    let runner = fleet.running();
    told(&fleet, async |change| resume(change, rollout.id).await).await.unwrap();
    fleet.plane.fleet.notify_one();
    assert_eq!(fleet.rest(rollout.id).await.state, "done");
    runner.stop().await;
    assert_eq!(fleet.versions().await, [4, 4]);
}

async fn what_is_given_up_is_skipped_and_what_is_in_flight_finishes(stage: &Stage) {
    let fleet = Fleet::of(stage, 3).await;
    let mut order = Fleet::order();
    (order.settings.canary, order.settings.waves) = (Canary::Number(0), Vec::new());
    order.settings.concurrency = 1;
    let rollout = fleet.start(&order).await.unwrap();
    let taken = take::take(&fleet.plane, rollout.id, 8, Duration::from_secs(8)).await.unwrap().unwrap();
    assert_eq!(taken.targets.len(), 1, "no more than may be at work at once");
    assert!(take::take(&fleet.plane, rollout.id, 8, Duration::from_secs(8)).await.unwrap().unwrap().targets.is_empty());
    told(&fleet, async |change| abort(change, rollout.id).await).await.unwrap();
    let jobs = target::jobs(&fleet.plane, taken).await.unwrap();
    for job in jobs {
        let outcome = job.attempt(&fleet.plane).await;
        record::record(&fleet.plane, [&outcome].into_iter()).await.unwrap();
    }
    assert_eq!(fleet.read(rollout.id).await.state, "aborted");
    assert_eq!(fleet.states(rollout.id).await, BTreeMap::from([("done".to_owned(), 1), ("skipped".to_owned(), 2)]));
    assert_eq!(fleet.versions().await, [4, 2, 2], "status tells the truth");
}

async fn what_makes_no_sense_is_refused(stage: &Stage) {
    let fleet = Fleet::of(stage, 1).await;
    let rollout = fleet.roll(&Fleet::order()).await;
    let id = rollout.id;
    let refusals = [
        told(&fleet, async |change| pause(change, id, "ada").await).await,
        told(&fleet, async |change| resume(change, id).await).await,
        told(&fleet, async |change| abort(change, id).await).await,
        told(&fleet, async |change| retry(change, id).await).await,
    ];
    for refusal in refusals {
        let refused = refusal.unwrap_err();
        assert_eq!((refused.status().as_u16(), refused.kind()), (409, "illegal-transition"));
    }
    let unknown = told(&fleet, async |change| abort(change, Uuid::now_v7()).await).await.unwrap_err();
    assert_eq!((unknown.status().as_u16(), unknown.kind()), (404, "rollout-not-found"));
}
