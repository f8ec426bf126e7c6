//! `/v1/plans`: named limits. A changed plan is news for every tenant that is on it.

use axum::extract::State;
use http::StatusCode;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::Deserialize;
use service::Problem;
use service::extract::{Json, Path, Query};
use service::problem::ProblemBody;
use std::num::NonZeroU32;
use tenancy::{Plan, Status, TenantLimits};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::auth::Operator;
use super::page::{Page, PageQuery, after, limit};
use crate::audit::Deed;
use crate::registry::entities::{plans, tenants};
use crate::registry::{plan_of, plan_row};

/// No limit is larger than this.
const LARGEST: u32 = 1_000_000_000;
/// A year, in seconds.
const LONGEST_WINDOW: u32 = 31_536_000;
const MOST_AT_ONCE: u32 = 100_000;

/// A plan's limits; the path has its name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanLimits {
    /// Requests in each window; without it, requests are not limited.
    #[schema(value_type = Option<u32>, minimum = 1)]
    requests: Option<NonZeroU32>,
    /// Length of the window in seconds; an hour unless told.
    #[schema(value_type = Option<u32>, minimum = 1)]
    window_seconds: Option<NonZeroU32>,
    /// Requests that may come at once; the window's whole amount unless told.
    #[schema(value_type = Option<u32>, minimum = 1)]
    burst: Option<NonZeroU32>,
    /// Requests of one client in each window, within the tenant's; without it, clients are not limited apart.
    #[schema(value_type = Option<u32>, minimum = 1)]
    client_requests: Option<NonZeroU32>,
    /// Requests of one client that may come at once; the window's whole amount unless told.
    #[schema(value_type = Option<u32>, minimum = 1)]
    client_burst: Option<NonZeroU32>,
    /// Database connections that one data plane may hold for the tenant.
    #[schema(value_type = u32, minimum = 1, maximum = 1000)]
    connections: NonZeroU32,
    /// Requests that one data plane serves at once for the tenant.
    #[schema(value_type = u32, minimum = 1, maximum = 100_000)]
    concurrency: NonZeroU32,
}

/// Lists plans.
#[utoipa::path(get, path = "/v1/plans", tag = "plans", params(PageQuery), responses((status = 200, body = Page<Plan>)))]
pub(super) async fn list(
    State(api): State<Api>,
    _: Operator,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Plan>>, Problem> {
    let limit = limit(page.limit)?;
    let mut select = plans::Entity::find();
    if let Some(after) = after::<String>(page.cursor.as_deref())? {
        select = select.filter(plans::Column::Name.gt(after));
    }
    let rows = select.order_by_asc(plans::Column::Name).limit(limit + 1).all(api.plane.registry.db()).await?;
    Ok(Json(Page::of(rows, limit, |row| row.name.clone(), plan_of)))
}

/// Shows a plan.
#[utoipa::path(
    get, path = "/v1/plans/{name}", tag = "plans", params(("name" = String, Path)),
    responses((status = 200, body = Plan), (status = 404, body = ProblemBody))
)]
pub(super) async fn show(State(api): State<Api>, _: Operator, Path(name): Path<String>) -> Result<Json<Plan>, Problem> {
    let found = plans::Entity::find_by_id(name).one(api.plane.registry.db()).await?;
    found.map(|row| Json(plan_of(row))).ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "plan-not-found", "There is no such plan. GET /v1/plans lists them.")
    })
}

/// Makes a plan, or changes it for every tenant that is on it.
#[utoipa::path(
    put, path = "/v1/plans/{name}", tag = "plans", request_body = PlanLimits, params(("name" = String, Path)),
    responses((status = 200, body = Plan), (status = 422, body = ProblemBody))
)]
pub(super) async fn put(
    State(api): State<Api>,
    _: Operator,
    Path(name): Path<String>,
    Json(limits): Json<PlanLimits>,
) -> Result<Json<Plan>, Problem> {
    let plan = plan(name, &limits)?;
    let mut change = api.plane.registry.change().await?;
    let again = OnConflict::column(plans::Column::Name)
        .update_columns([
            plans::Column::Requests,
            plans::Column::WindowSeconds,
            plans::Column::Burst,
            plans::Column::ClientRequests,
            plans::Column::ClientBurst,
            plans::Column::Connections,
            plans::Column::Concurrency,
        ])
        .to_owned();
    let before = plans::Entity::find_by_id(plan.name.as_str()).one(change.db()).await?.map(plan_of);
    plans::Entity::insert(plan_row(&plan)).on_conflict(again).exec_without_returning(change.db()).await?;
    let visible = Status::ALL.into_iter().filter(|status| status.is_visible()).map(Status::as_str);
    let on_it: Vec<Uuid> = tenants::Entity::find()
        .select_only()
        .column(tenants::Column::Id)
        .filter(tenants::Column::Plan.eq(plan.name.as_str()))
        .filter(tenants::Column::Status.is_in(visible))
        .into_tuple()
        .all(change.db())
        .await?;
    for tenant in on_it {
        change.touch(tenant);
    }
    let deed = Deed::on_platform("plan.set", plan.name.as_str());
    change.audit(match before {
        Some(before) => deed.changed(&before, &plan),
        None => deed.after(&plan),
    });
    change.commit().await?;
    Ok(Json(plan))
}

/// A tenant's own limits as they are kept; none for none.
pub(super) fn own_limits(limits: &TenantLimits) -> Result<Option<serde_json::Value>, Problem> {
    not_larger([
        ("limits.requests", limits.requests, LARGEST),
        ("limits.burst", limits.burst, LARGEST),
        ("limits.client_requests", limits.client_requests, LARGEST),
        ("limits.client_burst", limits.client_burst, LARGEST),
        ("limits.window_seconds", limits.window_seconds, LONGEST_WINDOW),
        ("limits.concurrency", limits.concurrency, MOST_AT_ONCE),
    ])?;
    let value = serde_json::to_value(limits).map_err(Problem::internal)?;
    Ok((!limits.is_empty()).then_some(value))
}

fn not_larger<const N: usize>(limits: [(&str, Option<NonZeroU32>, u32); N]) -> Result<(), Problem> {
    for (field, value, largest) in limits {
        if value.is_some_and(|value| value.get() > largest) {
            return Err(Problem::invalid_field(field, format!("must be at most {largest}")));
        }
    }
    Ok(())
}

fn plan(name: String, limits: &PlanLimits) -> Result<Plan, Problem> {
    let is_name = (1..=40).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if !is_name {
        return Err(Problem::invalid_field("name", "must have 1 to 40 characters of a-z, 0-9, - and _"));
    }
    let window_seconds = limits.window_seconds.or(NonZeroU32::new(3600)).unwrap_or(NonZeroU32::MIN);
    not_larger([
        ("requests", limits.requests, LARGEST),
        ("burst", limits.burst, LARGEST),
        ("client_requests", limits.client_requests, LARGEST),
        ("client_burst", limits.client_burst, LARGEST),
        ("window_seconds", Some(window_seconds), LONGEST_WINDOW),
        ("connections", Some(limits.connections), 1_000),
        ("concurrency", Some(limits.concurrency), MOST_AT_ONCE),
    ])?;
    if limits.burst.is_some() && limits.requests.is_none() {
        return Err(Problem::invalid_field("burst", "needs `requests`: without them nothing is limited"));
    }
    if limits.client_burst.is_some() && limits.client_requests.is_none() {
        return Err(Problem::invalid_field(
            "client_burst",
            "needs `client_requests`: without them no client is limited",
        ));
    }
    Ok(Plan {
        name,
        requests: limits.requests,
        window_seconds,
        burst: limits.burst,
        client_requests: limits.client_requests,
        client_burst: limits.client_burst,
        connections: limits.connections,
        concurrency: limits.concurrency,
    })
}
