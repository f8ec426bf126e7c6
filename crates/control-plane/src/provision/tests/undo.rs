//! What fails is undone, said and can be tried again; what cannot be undone now is kept and tried until it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder};
use tenancy::Status;
use tokio::sync::Notify;

use super::stage::{Stage, names_of, on_both};
use crate::provision::Kind;
use crate::provision::faults::{Fault, Faults, Point, Side};
use crate::provision::pace::ATTEMPTS;
use crate::registry::entities::{operation_steps, operations};

on_both! {
    a_step_that_fails_is_undone_with_all_before_it_and_a_retry_succeeds,
    a_passing_failure_is_tried_again_and_a_lasting_one_is_given_up,
    a_panic_fails_its_operation_and_no_other,
    an_undo_that_fails_is_kept_and_tried_until_it_succeeds,
    a_fleet_beyond_this_program_is_refused,
}

async fn steps(stage: &Stage, operation: &operations::Model) -> Vec<(String, String, i32)> {
    let rows = operation_steps::Entity::find()
        .filter(operation_steps::Column::OperationId.eq(operation.id))
        .order_by_asc(operation_steps::Column::Position)
        .all(stage.plane.registry.db())
        .await
        .unwrap();
    rows.into_iter().map(|row| (row.name, row.state, row.attempts)).collect()
}

fn at(point: Point, step: &str, is_undo: bool, side: Side) -> bool {
    point.step == step && point.is_undo == is_undo && point.side == side
}

async fn a_step_that_fails_is_undone_with_all_before_it_and_a_retry_succeeds(stage: &Stage) {
    let all = names_of(Kind::Create);
    let mut names = Vec::new();
    for (index, step) in all.iter().copied().enumerate() {
        let (arrived, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (bell, until) = (arrived.clone(), goes_on.clone());
        let faults = Faults::new(move |point| {
            // Its effect may be there: that is undone too.
            if at(point, step, false, Side::Effect) {
                return Fault::Refuse;
            }
            // Here the database's name is known for the last time.
            if at(point, "claim", true, Side::Before) {
                bell.notify_one();
                return Fault::Pause(until.clone());
            }
            Fault::None
        });
        let operation = stage.create(&format!("acme-{index}"), None).await;
        let runner = stage.runner(&faults);
        if step != "place" {
            arrived.notified().await;
            names.extend(stage.names().await);
            goes_on.notify_one();
        }
        let ended = stage.ended(&operation).await;
        runner.stop().await;
        assert_eq!(ended.state, "failed");
        assert_eq!(ended.error.unwrap(), format!("{step}: a fault of the test"));
        assert_eq!((stage.status(&operation).await, stage.tenant(&operation).await.server_id), (Status::Failed, None));
        assert!(stage.route(&operation).await.is_none());
        let undone: Vec<_> = faults
            .passed()
            .into_keys()
            .filter(|point| point.is_undo && point.side == Side::Committed)
            .map(|point| point.step)
            .collect();
        assert_eq!(undone.len(), index + 1, "{step}: {undone:?}");
        for (position, (name, state, attempts)) in steps(stage, &operation).await.into_iter().enumerate() {
            let expected = if position <= index { ("undone", 2) } else { ("pending", 0) };
            assert_eq!((state.as_str(), attempts), expected, "{name} after {step} failed");
        }
    }
    let failed = operations::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    assert_eq!(failed.len(), all.len());
    // `claim` itself fails before its row is there.
    assert_eq!((names.len(), stage.names().await.len()), (all.len() - 2, 0));
    assert_eq!(stage.leftovers(&names).await, [""; 0]);

    for operation in failed {
        let again = stage.retry(operation.id).await.unwrap();
        assert_eq!((again.state.as_str(), again.error.as_deref()), ("pending", None));
        assert_eq!(stage.status(&operation).await, Status::Provisioning);
        assert!(stage.retry(operation.id).await.is_err(), "it is under way");
        let ended = stage.work_until_ended(&operation, &Faults::default()).await;
        assert_eq!((ended.state.as_str(), ended.error), ("done", None));
        stage.assert_built(&operation).await;
    }
}

async fn a_passing_failure_is_tried_again_and_a_lasting_one_is_given_up(stage: &Stage) {
    let count = Arc::new(AtomicUsize::new(0));
    let failures = count.clone();
    let passing = Faults::new(move |point| {
        let fails = at(point, "migrate", false, Side::Effect) && failures.fetch_add(1, Ordering::Relaxed) < 2;
        if fails { Fault::Unavailable } else { Fault::None }
    });
    let operation = stage.create("acme", None).await;
    assert_eq!(stage.work_until_ended(&operation, &passing).await.state, "done");
    stage.assert_built(&operation).await;
    let migrate = steps(stage, &operation).await.swap_remove(4);
    assert_eq!(migrate, ("migrate".to_owned(), "done".to_owned(), 3));

    let lasting =
        Faults::new(|point| if at(point, "roles", false, Side::Before) { Fault::Unavailable } else { Fault::None });
    let operation = stage.create("globex", None).await;
    let ended = stage.work_until_ended(&operation, &lasting).await;
    assert_eq!(ended.error.as_deref(), Some("roles: a passing fault of the test"));
    let point = Point { step: "roles", is_undo: false, side: Side::Before };
    assert_eq!(lasting.passed()[&point], ATTEMPTS as usize);
}

async fn a_panic_fails_its_operation_and_no_other(stage: &Stage) {
    let panics = Arc::new(AtomicUsize::new(0));
    let counted = panics.clone();
    let faults = Faults::new(move |point| {
        let first = at(point, "stamp", false, Side::Before) && counted.fetch_add(1, Ordering::Relaxed) == 0;
        if first { Fault::Panic } else { Fault::None }
    });
    let (one, other) = (stage.create("acme", None).await, stage.create("globex", None).await);
    let runner = stage.runner(&faults);
    let mut ends = [stage.ended(&one).await, stage.ended(&other).await];
    runner.stop().await;
    ends.sort_by(|one, other| one.state.cmp(&other.state));
    let [done, failed] = ends;
    assert_eq!((done.state.as_str(), failed.state.as_str()), ("done", "failed"));
    assert_eq!(failed.error.as_deref(), Some("stamp: the step panicked; the control plane's log has its words"));
    stage.assert_built(&done).await;
    assert_eq!(stage.status(&failed).await, Status::Failed);
}

async fn an_undo_that_fails_is_kept_and_tried_until_it_succeeds(stage: &Stage) {
    let count = Arc::new(AtomicUsize::new(0));
    let failures = count.clone();
    let tries = 3 * ATTEMPTS as usize;
    let faults = Faults::new(move |point| {
        if at(point, "seed", false, Side::Before) {
            return Fault::Refuse;
        }
        let fails =
            at(point, "create_database", true, Side::Before) && failures.fetch_add(1, Ordering::Relaxed) < tries;
        if fails { Fault::Unavailable } else { Fault::None }
    });
    let operation = stage.create("acme", None).await;
    let runner = stage.runner(&faults);
    let kept = loop {
        let row = stage.operation(&operation).await;
        if count.load(Ordering::Relaxed) >= ATTEMPTS as usize && row.lease_holder.is_none() {
            break row;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    };
    if kept.state == "undoing" {
        assert_eq!(kept.error.as_deref(), Some("seed: a fault of the test"), "why it is undone is kept");
        assert_eq!(stage.status(&operation).await, Status::Provisioning);
    }
    let ended = stage.ended(&operation).await;
    runner.stop().await;
    assert_eq!((ended.state.as_str(), ended.error.as_deref()), ("failed", Some("seed: a fault of the test")));
    assert_eq!(count.load(Ordering::Relaxed), tries + 1);
    assert!(ended.fence >= 4, "it was let go between the rounds");
    assert_eq!(stage.names().await, [""; 0]);
}

async fn a_fleet_beyond_this_program_is_refused(stage: &Stage) {
    use sea_orm::sea_query::Expr;

    use crate::registry::entities::history;

    history::Entity::update_many()
        .col_expr(history::Column::SchemaVersion, Expr::value(3))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
    let operation = stage.create("acme", None).await;
    let ended = stage.work_until_ended(&operation, &Faults::default()).await;
    assert_eq!(
        ended.error.as_deref(),
        Some("migrate: the fleet is at schema version 3 and this control plane contains 2: upgrade it, then retry")
    );
}
