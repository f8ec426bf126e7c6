//! What becomes of a node's word that it heard of more than the registry has.

use std::time::Duration;

use sea_orm::PaginatorTrait;
use tenancy::feed::FeedRequest;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::provision::holds;
use crate::provision::tests::stage::{Stage, on_both};
use crate::registry::entities::{operations, records};

on_both! {
    a_node_that_claims_what_never_was_starts_again_and_changes_nothing,
    what_a_node_was_given_is_evidence_in_its_own_epoch_alone,
}

async fn ask(registry: &Registry, request: &FeedRequest) -> FeedAnswer {
    registry.heard(request, registry.now()).await.unwrap();
    registry.follow(request, Duration::from_mins(1), &CancellationToken::new()).await.unwrap()
}

/// A node that has heard of so much.
fn at(node: &FeedRequest, epoch: Epoch, heard: Revision) -> FeedRequest {
    FeedRequest { epoch: Some(epoch), after: Revision(0), heard, ..node.clone() }
}

async fn lost(stage: &Stage) -> Option<Lost> {
    Lost::of(&stage.plane.registry.history().await.unwrap())
}

async fn row_of(stage: &Stage, node: &FeedRequest) -> nodes::Model {
    nodes::Entity::find_by_id(node.node.as_uuid()).one(stage.plane.registry.db()).await.unwrap().unwrap()
}

/// Does what a restore does that the control plane is not told of.
async fn set_head(stage: &Stage, head: Revision) {
    history::Entity::update_many()
        .col_expr(history::Column::Head, Expr::value(head.0.cast_signed()))
        .filter(history::Column::Id.eq(1))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
}

async fn a_node_that_claims_what_never_was_starts_again_and_changes_nothing(stage: &Stage) {
    stage.built("acme").await;
    stage.create("next", None).await;
    let registry = &stage.plane.registry;
    let before = registry.history().await.unwrap();
    let (epoch, head) = position(&before);
    let node = stage.behind().await;
    let most = Revision(u64::MAX);
    for _ in 0..3 {
        for (after, heard) in [(Revision(0), most), (most, Revision(0)), (head, Revision(head.0 + 1))] {
            let claim = FeedRequest { after, applied: after.max(heard), ..at(&node, epoch, heard) };
            let answer = ask(registry, &claim).await;
            assert_eq!((answer.reset, answer.epoch, answer.position), (true, epoch, head));
            assert_eq!(row_of(stage, &node).await.applied, 0, "it waits for the node as for one that applied nothing");
        }
    }
    assert_eq!(registry.history().await.unwrap(), before);
    assert_eq!(operations::Entity::find().filter(holds()).count(registry.db()).await.unwrap(), 0);
    let answer = ask(registry, &FeedRequest { after: head, applied: head, ..at(&node, epoch, head) }).await;
    assert!(!answer.reset, "where it was told to start, it goes on");
    assert_eq!(row_of(stage, &node).await.applied.unsigned_abs(), head.0);
}

async fn what_a_node_was_given_is_evidence_in_its_own_epoch_alone(stage: &Stage) {
    stage.built("acme").await;
    stage.built("globex").await;
    let registry = &stage.plane.registry;
    // Another control plane, or the same one after its restart.
    let elsewhere = Registry { told: Told::default(), ..registry.clone() };
    let (node, other) = (stage.behind().await, stage.behind().await);
    let head = position(&registry.history().await.unwrap()).1;
    let earlier = Revision(head.0 - 1);
    for is_remembered_by_the_process in [true, false] {
        let (epoch, _) = position(&registry.history().await.unwrap());
        let answer = ask(registry, &at(&node, epoch, earlier)).await;
        assert_eq!((answer.reset, answer.position), (false, head));
        assert_eq!(row_of(stage, &node).await.told.unsigned_abs(), head.0);
        set_head(stage, earlier).await;
        let witness = if is_remembered_by_the_process {
            let forgotten = nodes::Entity::update_many().col_expr(nodes::Column::ToldEpoch, Expr::value(None::<Uuid>));
            forgotten.exec(registry.db()).await.unwrap();
            registry
        } else {
            &elsewhere
        };
        assert!(ask(witness, &at(&other, epoch, head)).await.reset);
        assert_eq!(lost(stage).await, None, "that node was given nothing");
        assert!(ask(witness, &at(&node, epoch, Revision(head.0 + 1))).await.reset);
        assert_eq!(lost(stage).await, None, "and this one not so much");
        for _ in 0..2 {
            let answer = ask(witness, &at(&node, epoch, head)).await;
            assert_eq!((answer.reset, answer.epoch, answer.position), (true, epoch, earlier));
            let number = head.0.cast_signed();
            let all = Lost { from: number, to: number, node: node.node.as_uuid() };
            assert_eq!(lost(stage).await, Some(all), "remembered by the process: {is_remembered_by_the_process}");
        }
        let next = position(&registry.begin_epoch(epoch.0).await.unwrap()).0;
        assert_eq!(lost(stage).await, None, "another epoch acknowledges it");
        assert!(ask(witness, &at(&node, next, head)).await.reset);
        assert_eq!(lost(stage).await, None, "what was given of another epoch is none of this one");
        set_head(stage, head).await;
    }
    let told = records::Entity::find().filter(records::Column::Action.eq("registry.history-lost"));
    assert_eq!(told.count(registry.db()).await.unwrap(), 2, "once each time");
}
