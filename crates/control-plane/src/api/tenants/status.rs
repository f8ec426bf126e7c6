//! `POST /v1/tenants/{tenant}/suspend` and `/resume`: at once, for every data plane.

use axum::extract::State;
use http::HeaderMap;
use sea_orm::ActiveValue::Set;
use service::Problem;
use service::extract::Path;
use service::problem::ProblemBody;
use tenancy::Status;

use super::{Tenant, find_to_change, illegal, save, shown, status_of};
use crate::api::Api;
use crate::api::once::{Answer, Ticket};
use crate::api::precondition::if_match;
use crate::audit::Deed;

/// Suspends an active tenant: it is refused, and keeps its data.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/suspend", tag = "tenants",
    params(("tenant" = String, Path, description = "Id or slug"), ("If-Match" = Option<String>, Header),
           ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Tenant), (status = 404, body = ProblemBody),
              (status = 409, description = "It is not active", body = ProblemBody),
              (status = 412, description = "It was changed since", body = ProblemBody))
)]
pub(crate) async fn suspend(
    State(api): State<Api>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    ticket: Ticket,
) -> Result<Answer, Problem> {
    turn(&api, &tenant, &headers, ticket, Status::Active, Status::Suspended).await
}

/// Resumes a suspended tenant.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/resume", tag = "tenants",
    params(("tenant" = String, Path, description = "Id or slug"), ("If-Match" = Option<String>, Header),
           ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 200, body = Tenant), (status = 404, body = ProblemBody),
              (status = 409, description = "It is not suspended", body = ProblemBody),
              (status = 412, description = "It was changed since", body = ProblemBody))
)]
pub(crate) async fn resume(
    State(api): State<Api>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    ticket: Ticket,
) -> Result<Answer, Problem> {
    turn(&api, &tenant, &headers, ticket, Status::Suspended, Status::Active).await
}

/// The table may know other ways to a status; these two calls are for the one between active and suspended.
async fn turn(
    api: &Api,
    tenant: &str,
    headers: &HeaderMap,
    mut ticket: Ticket,
    from: Status,
    to: Status,
) -> Result<Answer, Problem> {
    let registry = &api.plane.registry;
    let mut change = registry.change().await?;
    let row = find_to_change(&change, tenant).await?;
    if_match(headers, row.version)?;
    let now = status_of(&row)?;
    if now != from {
        return Err(illegal(tenancy::status::IllegalTransition { from: now, to }));
    }
    let next = now.become_(to).map_err(illegal)?;
    let before = Tenant::of(row.clone(), None);
    let row = save(&change, row, registry.now(), |row| row.status = Set(next.as_str().to_owned())).await?;
    let action = if to == Status::Suspended { "tenant.suspended" } else { "tenant.resumed" };
    change.audit(Deed::on_tenant(action, row.id).changed(&before, &Tenant::of(row.clone(), None)));
    change.touch(row.id);
    let answer = shown(change.db(), row).await?;
    ticket.record(&change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}
