//! `POST /v1/tenants/{tenant}/reconnect`: other connections to a tenant's database, on every data plane. No request fails for it.

use std::time::Duration;

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter};
use serde::Serialize;
use service::Problem;
use service::extract::Path;
use service::problem::ProblemBody;
use tenancy::Status;
use tenancy::route::Revision;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use super::{Tenant, find_alive, status_of};
use crate::api::Api;
use crate::api::once::{Answer, Ticket};
use crate::api::precondition::preferred_wait;
use crate::audit::Deed;
use crate::plane::Plane;
use crate::registry::entities::tenants;

/// How often a tenant's connections may be replaced: each time its data planes dial all of them again.
const EVERY: Duration = Duration::from_secs(1);
/// Between two looks at how far data planes are.
const PAUSE: Duration = Duration::from_millis(20);

/// How far the replacement is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Reconnection {
    tenant: Tenant,
    /// The revision of the registry's history by which data planes hear of it. Null in the recorded answer to a request whose
    /// control plane ended before it could say.
    revision: Option<u64>,
    /// Data planes that may still use an earlier connection. Null where `revision` is.
    nodes_behind: Option<usize>,
}

/// Replaces all connections that data planes have to a tenant's database.
///
/// Each data plane closes idle connections at once, and those in use after their statement or transaction. What comes next opens
/// other connections. With `Prefer: wait=SECONDS` the answer waits until all data planes have done so.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/reconnect", tag = "tenants",
    params(("tenant" = String, Path, description = "Id or slug"), ("Idempotency-Key" = Option<String>, Header),
           ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")),
    responses((status = 200, description = "Replaced on every data plane", body = Reconnection),
              (status = 202, description = "Being replaced", body = Reconnection),
              (status = 404, body = ProblemBody),
              (status = 409, description = "It is not active, and has no connections", body = ProblemBody),
              (status = 429, description = "They were replaced within the last second", body = ProblemBody))
)]
pub(crate) async fn reconnect(
    State(api): State<Api>,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    mut ticket: Ticket,
) -> Result<Answer, Problem> {
    let plane = &api.plane;
    let mut change = plane.registry.change().await?;
    let row = find_alive(&change, &tenant).await?;
    if status_of(&row)? != Status::Active {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "illegal-transition",
            "The tenant is not active, so that data planes have no connections to its database. They open new ones once it is.",
        ));
    }
    let now = change.now();
    not_too_often(row.reconnected_at, now)?;
    tenants::Entity::update_many()
        .col_expr(tenants::Column::Reconnects, Expr::col(tenants::Column::Reconnects).add(1))
        .col_expr(tenants::Column::ReconnectedAt, Expr::value(now))
        .filter(tenants::Column::Id.eq(row.id))
        .exec(change.db())
        .await?;
    change.audit(Deed::on_tenant("tenant.reconnected", row.id));
    change.touch(row.id);
    let tenant = Tenant::read(change.db(), row).await?;
    let mut told = Reconnection { tenant, revision: None, nodes_behind: None };
    ticket.record_begun(&change, &Answer::new(StatusCode::ACCEPTED, &told)?, true).await?;
    let revision = change.commit().await?.unwrap_or_default();
    let behind = nodes_behind(plane, revision, preferred_wait(&headers).unwrap_or_default()).await?;
    told.revision = Some(revision.0);
    told.nodes_behind = Some(behind);
    let answer = Answer::new(if behind == 0 { StatusCode::OK } else { StatusCode::ACCEPTED }, &told)?;
    ticket.amend(plane, &answer).await?;
    Ok(answer)
}

/// Refuses what comes too soon after the last time.
fn not_too_often(last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Result<(), Problem> {
    let Some(last) = last else { return Ok(()) };
    // Either way: a clock that went back holds nothing up for longer.
    let since = (now - last).abs().to_std().unwrap_or(EVERY);
    let Some(left) = EVERY.checked_sub(since).filter(|left| !left.is_zero()) else { return Ok(()) };
    Err(Problem::new(
        StatusCode::TOO_MANY_REQUESTS,
        "too-many-reconnects",
        "The tenant's connections were replaced within the last second. Send the request again after the time in Retry-After.",
    )
    .with_retry_after(left))
}

/// Data planes that have not applied the revision, once there are none or this time has passed.
async fn nodes_behind(plane: &Plane, revision: Revision, patience: Duration) -> Result<usize, Problem> {
    let registry = &plane.registry;
    let deadline = Instant::now() + patience;
    loop {
        let behind = registry.nodes_behind(revision, registry.now() - plane.stale_after).await?.len();
        if behind == 0 || Instant::now() >= deadline || plane.stopping.is_cancelled() {
            return Ok(behind);
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_tenants_connections_are_replaced_at_most_once_a_second() {
        let now = DateTime::UNIX_EPOCH;
        assert!(not_too_often(None, now).is_ok());
        let refused = not_too_often(Some(now - TimeDelta::milliseconds(999)), now).unwrap_err();
        assert_eq!((refused.status().as_u16(), refused.kind()), (429, "too-many-reconnects"));
        assert!(not_too_often(Some(now - TimeDelta::seconds(1)), now).is_ok());
        assert!(not_too_often(Some(now + TimeDelta::hours(1)), now).is_ok(), "a clock that went back");
    }
}
