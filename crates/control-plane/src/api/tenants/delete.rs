//! `DELETE /v1/tenants/{tenant}` and `/restore`: refused at once, gone only when the grace period has passed.

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use sea_orm::ActiveValue::Set;
use service::Problem;
use service::extract::Path;
use service::problem::ProblemBody;
use tenancy::Status;

use super::{Tenant, TenantAndOperation, accepted, find_to_change, illegal, order, save, shown, status_of};
use crate::api::Api;
use crate::api::auth::Operator;
use crate::api::once::{Answer, Ticket};
use crate::api::precondition::if_match;
use crate::audit::Deed;
use crate::provision::{self, Kind, in_the_way};

/// Deletes a tenant. Until its `delete_after` it can be restored; then its database and all of its data go.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}", tag = "tenants",
    params(("tenant" = String, Path, description = "Id or slug"), ("If-Match" = Option<String>, Header)),
    responses((status = 202, body = TenantAndOperation), (status = 404, body = ProblemBody),
              (status = 409, description = "It is being provisioned or deleted, or work on it is held", body = ProblemBody),
              (status = 412, description = "It was changed since", body = ProblemBody))
)]
pub(crate) async fn delete(
    State(api): State<Api>,
    operator: Operator,
    Path(tenant): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let plane = &api.plane;
    let now = plane.registry.now();
    let mut change = plane.registry.change().await?;
    let row = find_to_change(&change, &tenant).await?;
    if_match(&headers, row.version)?;
    let before = status_of(&row)?;
    // A failed one has no database any more, and nothing to be restored.
    let (to, after) = match before {
        Status::Failed => (Status::Deleted, now),
        _ => (Status::Deleting, now + plane.grace),
    };
    let next = before.become_(to).map_err(illegal)?;
    // It would wait for that one for ever, and say nothing.
    if let Some(held) = provision::begun(change.db(), row.id, change.epoch().await?).await? {
        return Err(in_the_way(&held));
    }
    let was = Tenant::of(row.clone(), None);
    let row = save(&change, row, now, |row| {
        row.status = Set(next.as_str().to_owned());
        row.status_before = Set(Some(before.as_str().to_owned()));
        row.delete_after = Set((next == Status::Deleting).then_some(after));
    })
    .await?;
    change.audit(Deed::on_tenant("tenant.deletion-ordered", row.id).changed(&was, &Tenant::of(row.clone(), None)));
    if next == Status::Deleting {
        change.touch(row.id);
    }
    let operation = provision::enqueue(&change, order(Kind::Delete, row.id, after, &operator)).await?;
    change.commit().await?;
    plane.wake.ring();
    let version = row.version;
    Ok(accepted(Tenant::read(plane.registry.db(), row).await?, version, operation))
}

/// Restores a tenant that is being deleted, as it was before.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/restore", tag = "tenants",
    params(("tenant" = String, Path, description = "Id or slug"), ("If-Match" = Option<String>, Header),
           ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Tenant), (status = 404, body = ProblemBody),
              (status = 412, description = "It was changed since", body = ProblemBody),
              (status = 409, description = "It is not being deleted, its grace period is over, or work on it is held", body = ProblemBody))
)]
pub(crate) async fn restore(
    State(api): State<Api>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    mut ticket: Ticket,
) -> Result<Answer, Problem> {
    let registry = &api.plane.registry;
    let mut change = registry.change().await?;
    let row = find_to_change(&change, &tenant).await?;
    tracing::debug!(tenant = %row.id, "a restore begins");
    if_match(&headers, row.version)?;
    let now = status_of(&row)?;
    let before = row.status_before.as_deref().and_then(|status| status.parse().ok()).unwrap_or(Status::Active);
    if now != Status::Deleting {
        return Err(illegal(tenancy::status::IllegalTransition { from: now, to: before }));
    }
    let next = now.become_(before).map_err(illegal)?;
    if !provision::cancel_delete(&change, row.id).await? {
        if let Some(held) = provision::begun(change.db(), row.id, change.epoch().await?).await? {
            return Err(in_the_way(&held));
        }
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "grace-period-over",
            "The tenant's data is being deleted now and cannot be restored. Create it anew.",
        ));
    }
    let was = Tenant::of(row.clone(), None);
    let row = save(&change, row, registry.now(), |row| {
        row.status = Set(next.as_str().to_owned());
        row.status_before = Set(None);
        row.delete_after = Set(None);
    })
    .await?;
    change.audit(Deed::on_tenant("tenant.restored", row.id).changed(&was, &Tenant::of(row.clone(), None)));
    change.touch(row.id);
    let id = row.id;
    let answer = shown(change.db(), row).await?;
    ticket.record(&change, &answer).await?;
    tracing::debug!(tenant = %id, "a restore is about to be committed");
    change.commit().await?;
    tracing::debug!(tenant = %id, "a restore is committed");
    Ok(answer)
}
