//! Operations that ended long ago go; what is not ended, is a tenant's newest or was a moment ago stays.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use tenancy::Status;
use uuid::Uuid;

use super::stage::{Stage, on_both};
use crate::provision::faults::{Fault, Faults, Side};
use crate::provision::prune::look;
use crate::registry::entities::{erasures, operation_steps, operations};

on_both! { what_ended_long_ago_is_pruned_but_for_each_tenants_newest }

async fn set(stage: &Stage, operation: &operations::Model, column: operations::Column, to: Option<DateTime<Utc>>) {
    operations::Entity::update_many()
        .col_expr(column, Expr::value(to))
        .filter(operations::Column::Id.eq(operation.id))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
}

async fn what_ended_long_ago_is_pruned_but_for_each_tenants_newest(stage: &Stage) {
    let registry = &stage.plane.registry;
    let now = registry.now();
    let long_ago = now - Duration::from_hours(24 * 100);
    let before = now - Duration::from_hours(24 * 90);
    let rotated = async |tenant: &operations::Model, ended| {
        let rotation = stage.rotate(tenant, true).await;
        assert_eq!(stage.work_until_ended(&rotation, &Faults::default()).await.state, "done");
        set(stage, &rotation, operations::Column::FinishedAt, Some(ended)).await;
        rotation
    };
    // One of old ones and a new one; one of old ones alone; one that is deleted; one that failed.
    let acme = stage.built("acme").await;
    set(stage, &acme, operations::Column::FinishedAt, Some(long_ago)).await;
    let (first, second, third) =
        (rotated(&acme, long_ago).await, rotated(&acme, long_ago).await, rotated(&acme, now).await);
    let globex = stage.built("globex").await;
    set(stage, &globex, operations::Column::FinishedAt, Some(long_ago)).await;
    let last = rotated(&globex, long_ago).await;
    let gone = stage.built("gone").await;
    set(stage, &gone, operations::Column::FinishedAt, Some(long_ago)).await;
    let deletion = stage.delete(&gone, Status::Active).await;
    assert_eq!(stage.work_until_ended(&deletion, &Faults::default()).await.state, "done");
    set(stage, &deletion, operations::Column::FinishedAt, Some(long_ago)).await;
    let failed = stage.create("failed", None).await;
    let fails = Faults::new(|at| {
        let is_it = at.step == "seed" && !at.is_undo && at.side == Side::Before;
        if is_it { Fault::Refuse } else { Fault::None }
    });
    assert_eq!(stage.work_until_ended(&failed, &fails).await.state, "failed");
    set(stage, &failed, operations::Column::FinishedAt, Some(long_ago)).await;
    // Work that goes on for long is not over, whatever came after it.
    let (waiting, after) = (stage.rotate(&acme, false).await, stage.rotate(&acme, false).await);
    set(stage, &waiting, operations::Column::CreatedAt, Some(long_ago)).await;

    // In batches as small as can be: what stays is passed over, and nothing behind it forgotten.
    assert_eq!(look(registry, before, 1).await.unwrap(), 5);
    let mut kept: Vec<Uuid> =
        operations::Entity::find().all(registry.db()).await.unwrap().into_iter().map(|row| row.id).collect();
    kept.sort();
    assert!([&acme, &first, &second, &globex, &gone].iter().all(|pruned| !kept.contains(&pruned.id)));
    assert_eq!(kept, [&third, &last, &deletion, &failed, &waiting, &after].map(|it| it.id));
    let steps = operation_steps::Entity::find().all(registry.db()).await.unwrap();
    assert!(steps.iter().all(|step| kept.contains(&step.operation_id)));
    assert!(kept.iter().all(|id| steps.iter().any(|step| step.operation_id == *id)));
    assert_eq!(look(registry, before, 500).await.unwrap(), 0);
    // What says who erased it is there, and what failed can be started again.
    assert!(erasures::Entity::find_by_id(gone.tenant_id.unwrap()).one(registry.db()).await.unwrap().is_some());
    assert_eq!(stage.retry(failed.id).await.unwrap().state, "pending");
}
