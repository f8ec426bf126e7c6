//! Work on a tenant: while it goes on, the tenant is left to it; when it does not end, that is told.

use chrono::Utc;

use super::*;
use crate::doctor::tenants::Seen;
use crate::provision::Kind as Work;

on_both! {
    a_tenant_that_is_worked_on_is_left_to_the_work,
    what_changed_since_it_was_read_is_read_again,
    work_that_does_not_end_is_told,
    work_of_another_epoch_is_told_with_what_to_do,
}

async fn set_operation(stage: &Stage, id: Uuid, column: rows::Column, value: impl Into<sea_orm::Value>) {
    rows::Entity::update_many()
        .col_expr(column, Expr::value(value))
        .filter(rows::Column::Id.eq(id))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
}

async fn a_tenant_that_is_worked_on_is_left_to_the_work(stage: &Stage) {
    let (tenant, _) = built(stage, "acme").await;
    set_tenant(stage, tenant.id, tenants::Column::SchemaVersion, 1).await;
    let operation = order(stage, Work::Rotate, tenant.id).await;
    for state in ["pending", "running", "undoing"] {
        set_operation(stage, operation.id, rows::Column::State, state).await;
        assert_eq!(kinds(&look(stage, true).await.0), [], "{state}");
    }
    // It is due later than any fix takes: the end of a grace period, say.
    set_operation(stage, operation.id, rows::Column::State, "pending").await;
    set_operation(stage, operation.id, rows::Column::RunAfter, Utc::now() + Duration::from_hours(24)).await;
    only(stage, Kind::SchemaVersionDisagrees).await;
    set_operation(stage, operation.id, rows::Column::State, "done").await;
    assert_fixed(stage, Kind::SchemaVersionDisagrees).await;
}

async fn what_changed_since_it_was_read_is_read_again(stage: &Stage) {
    let (tenant, _) = built(stage, "acme").await;
    let doctor = Doctor::new(stage.plane.clone());
    let read = || async { Seen::read(stage.plane.registry.db(), tenant.id).await.unwrap().unwrap() };
    let (first, second) = (read().await, read().await);
    let (servers, _) = doctor.servers_of(&[read().await]).await.unwrap();
    rotated(stage, tenant.id).await;
    assert_eq!(kinds(&doctor.tenant(&servers, first).await.unwrap()), [], "by what was read, another role may log in");

    set_tenant(stage, tenant.id, tenants::Column::Status, "deleting").await;
    let deletion = order(stage, Work::Delete, tenant.id).await;
    {
        let _runner = Running::on(stage);
        assert_eq!(wait(&stage.plane, deletion.id, PATIENCE).await.unwrap().state, "done");
    }
    assert_eq!(kinds(&doctor.examined(&servers, &second).await), [Kind::DatabaseMissing], "by what was read");
    assert_eq!(kinds(&doctor.tenant(&servers, second).await.unwrap()), []);
}

async fn work_that_does_not_end_is_told(stage: &Stage) {
    let (tenant, _) = built(stage, "acme").await;
    let long_ago = Utc::now() - Duration::from_hours(2);
    let operation = order(stage, Work::Rotate, tenant.id).await;
    set_operation(stage, operation.id, rows::Column::CreatedAt, long_ago).await;
    set_operation(stage, operation.id, rows::Column::Error, "await_nodes: planted").await;
    for state in ["pending", "running"] {
        set_operation(stage, operation.id, rows::Column::State, state).await;
        let left = assert_left(stage, Kind::OperationStuck).await;
        assert_eq!(left.tenant.as_deref(), Some("acme"));
        assert!(left.detail.contains("planted") && left.remedy.contains(&operation.id.to_string()), "{left:?}");
    }
    set_operation(stage, operation.id, rows::Column::CreatedAt, Utc::now() - Duration::from_mins(50)).await;
    assert_eq!(kinds(&found(stage).await), [], "not for an hour yet");
    set_operation(stage, operation.id, rows::Column::State, "failed").await;
    set_operation(stage, operation.id, rows::Column::CreatedAt, long_ago).await;
    assert_eq!(kinds(&found(stage).await), [], "it has ended");

    // A deletion is due when its grace period is over.
    let deletion = order(stage, Work::Delete, tenant.id).await;
    set_tenant(stage, tenant.id, tenants::Column::Status, "deleting").await;
    set_operation(stage, deletion.id, rows::Column::CreatedAt, long_ago).await;
    set_tenant(stage, tenant.id, tenants::Column::DeleteAfter, Utc::now() - Duration::from_mins(5)).await;
    assert_eq!(kinds(&found(stage).await), []);
    set_tenant(stage, tenant.id, tenants::Column::DeleteAfter, Utc::now() - Duration::from_mins(65)).await;
    assert_eq!(kinds(&found(stage).await), [Kind::OperationStuck]);
    set_operation(stage, deletion.id, rows::Column::RunAfter, Utc::now() + Duration::from_hours(24)).await;
    assert_eq!(kinds(&found(stage).await), []);
}

async fn work_of_another_epoch_is_told_with_what_to_do(stage: &Stage) {
    let (tenant, _) = built(stage, "acme").await;
    let deletion = order(stage, Work::Delete, tenant.id).await;
    set_tenant(stage, tenant.id, tenants::Column::Status, "deleting").await;
    set_operation(stage, deletion.id, rows::Column::CreatedAt, Utc::now() - Duration::from_hours(2)).await;
    set_operation(stage, deletion.id, rows::Column::Epoch, Uuid::new_v4()).await;
    let held = assert_left(stage, Kind::OperationHeld).await;
    assert_eq!(held.tenant.as_deref(), Some("acme"));
    for call in [format!("/v1/operations/{}/retry", deletion.id), "/v1/tenants/acme/restore".to_owned()] {
        assert!(held.remedy.contains(&call), "{held:?}");
    }
    // Nobody works on the tenant: what else differs is told too, and put right.
    set_tenant(stage, tenant.id, tenants::Column::SchemaVersion, 1).await;
    assert_eq!(kinds(&found(stage).await), [Kind::OperationHeld, Kind::SchemaVersionDisagrees]);
    // Once it was begun, the tenant is between two states, and cannot be restored.
    set_operation(stage, deletion.id, rows::Column::State, "running").await;
    let held = assert_left(stage, Kind::OperationHeld).await;
    assert!(!held.remedy.contains("restore"), "{held:?}");
    set_operation(stage, deletion.id, rows::Column::State, "done").await;
    assert_eq!(kinds(&found(stage).await), [Kind::SchemaVersionDisagrees]);
}
