//! `POST /v1/tenants/{tenant}/rotate-credentials`: another login role with a new password. No request fails for it.

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use sea_orm::{ConnectionTrait, EntityTrait};
use serde::Deserialize;
use service::Problem;
use service::extract::{Path, Query};
use service::problem::ProblemBody;
use utoipa::IntoParams;

use super::{Tenant, TenantAndOperation, find, find_alive, order, status_of};
use crate::api::Api;
use crate::api::auth::Operator;
use crate::api::once::{Answer, Ticket};
use crate::api::operations::Operation;
use crate::api::precondition::{concurrent_change, etag, if_match, preferred_wait};
use crate::audit::Deed;
use crate::provision::{self, Kind, On, Order, in_the_way, is_held};
use crate::registry::entities::{operations, tenants};

/// How.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateQuery {
    /// Waits for no data plane: one that has not taken the new URL yet is cut off, and named in the operation's note.
    #[serde(default)]
    force: bool,
}

/// Rotates the credentials of a tenant's database. With `Prefer: wait=SECONDS` the answer waits until the old ones are barred.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/rotate-credentials", tag = "tenants",
    params(("tenant" = String, Path, description = "Id or slug"), RotateQuery, ("If-Match" = Option<String>, Header),
           ("Idempotency-Key" = Option<String>, Header),
           ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")),
    responses((status = 200, description = "Rotated", body = TenantAndOperation),
              (status = 202, description = "Being rotated", body = TenantAndOperation),
              (status = 404, body = ProblemBody),
              (status = 409, description = "It has no credentials, they are being rotated, or work on it is held", body = ProblemBody),
              (status = 412, description = "It was changed since", body = ProblemBody))
)]
pub(crate) async fn rotate(
    State(api): State<Api>,
    operator: Operator,
    Path(tenant): Path<String>,
    Query(query): Query<RotateQuery>,
    headers: HeaderMap,
    mut ticket: Ticket,
) -> Result<Answer, Problem> {
    let plane = &api.plane;
    let mut change = plane.registry.change().await?;
    // The operation before the tenant, as whoever works on it locks them.
    let seen = find(change.db(), &tenant).await?.id;
    let epoch = change.epoch().await?;
    if let Some(held) = provision::begun(change.db(), seen, epoch).await? {
        return Err(in_the_way(&held));
    }
    let open = match provision::open(&change, On::Tenant(seen), Kind::Rotate).await? {
        Some(held) if is_held(&held, epoch) => return Err(in_the_way(&held)),
        Some(waiting) if query.force => Some(provision::force(&change, waiting).await?),
        Some(_) => {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "rotation-at-work",
                "The tenant's credentials are being rotated already. GET /v1/operations?tenant= shows how far that is; with \
                 force=true it waits for no data plane any more.",
            ));
        }
        None => None,
    };
    let row = find_alive(&change, &tenant).await?;
    if_match(&headers, row.version)?;
    if !status_of(&row)?.is_visible() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "illegal-transition",
            "The tenant has no credentials yet. Rotate them once it is active.",
        ));
    }
    let id = row.id;
    let operation = if let Some(forced) = open {
        forced
    } else {
        // Nobody else orders one while the tenant is locked.
        if provision::open(&change, On::Tenant(id), Kind::Rotate).await?.is_some() {
            return Err(concurrent_change("tenant"));
        }
        let order = Order { is_forced: query.force, ..order(Kind::Rotate, id, change.now(), &operator) };
        provision::enqueue(&change, order).await?
    };
    let operation_id = operation.id;
    let deed = Deed::on_tenant("tenant.rotation-ordered", id).of(operation_id.to_string());
    change.audit(if query.force { deed.detail("it waits for no data plane") } else { deed });
    let accepted = answer(change.db(), StatusCode::ACCEPTED, row, operation).await?;
    let patience = preferred_wait(&headers);
    ticket.record_begun(&change, &accepted, patience.is_some()).await?;
    change.commit().await?;
    plane.wake.ring();

    let Some(patience) = patience else { return Ok(accepted) };
    let ended = provision::wait(plane, operation_id, patience).await?;
    let Some(row) = tenants::Entity::find_by_id(id).one(plane.registry.db()).await? else { return Ok(accepted) };
    let status = if provision::is_done(&ended) { StatusCode::OK } else { StatusCode::ACCEPTED };
    let answer = answer(plane.registry.db(), status, row, ended).await?;
    ticket.amend(plane, &answer).await?;
    Ok(answer)
}

async fn answer(
    db: &impl ConnectionTrait,
    status: StatusCode,
    row: tenants::Model,
    operation: operations::Model,
) -> Result<Answer, Problem> {
    let (tag, location) = (etag(row.version), format!("/v1/operations/{}", operation.id));
    let tenant = Tenant::read(db, row).await?;
    let body = TenantAndOperation { tenant, operation: Operation::ordered(operation) };
    Ok(Answer::new(status, &body)?.at(location).tagged(&tag))
}
