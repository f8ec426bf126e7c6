//! `/v1/tenants/{tenant}/domains`: custom hosts that name a tenant.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
    SqlErr,
};
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::{Json, Path, Query};
use service::problem::ProblemBody;
use tenancy::route::MAX_HOSTS;
use utoipa::ToSchema;

use super::Api;
use super::auth::Operator;
use super::config::touch_if_seen;
use super::once::{Answer, Once};
use super::page::{Page, PageQuery, after, limit};
use super::tenants::{find, find_alive};
use crate::registry::entities::domains;

/// A new custom host.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateDomain {
    /// A host name without a port; upper case is made lower.
    #[schema(example = "pets.acme.test")]
    host: String,
}

/// A custom host.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Domain {
    host: String,
    created_at: DateTime<Utc>,
}

impl From<domains::Model> for Domain {
    fn from(row: domains::Model) -> Self {
        Self { host: row.host, created_at: row.created_at }
    }
}

/// Lists a tenant's custom hosts.
#[utoipa::path(
    get, path = "/v1/tenants/{tenant}/domains", tag = "domains",
    params(("tenant" = String, Path, description = "Id or slug"), PageQuery),
    responses((status = 200, body = Page<Domain>), (status = 404, body = ProblemBody))
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Operator,
    Path(tenant): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Domain>>, Problem> {
    let db = api.plane.registry.db();
    let limit = limit(page.limit)?;
    let row = find(db, &tenant).await?;
    let mut select = domains::Entity::find().filter(domains::Column::TenantId.eq(row.id));
    if let Some(after) = after::<String>(page.cursor.as_deref())? {
        select = select.filter(domains::Column::Host.gt(after));
    }
    let rows = select.order_by_asc(domains::Column::Host).limit(limit + 1).all(db).await?;
    Ok(Json(Page::of(rows, limit, |row| row.host.clone(), Domain::from)))
}

/// Gives a tenant a custom host.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/domains", tag = "domains", request_body = CreateDomain,
    params(("tenant" = String, Path, description = "Id or slug"), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Domain), (status = 404, body = ProblemBody),
              (status = 409, description = "Some tenant has the host", body = ProblemBody), (status = 422, body = ProblemBody))
)]
pub(super) async fn create(
    State(api): State<Api>,
    Path(tenant): Path<String>,
    Once { body, mut ticket }: Once<CreateDomain>,
) -> Result<Answer, Problem> {
    let registry = &api.plane.registry;
    let host = host(&body.host)?;
    let mut change = registry.change().await?;
    let tenant = find_alive(&change, &tenant).await?;
    let count = domains::Entity::find().filter(domains::Column::TenantId.eq(tenant.id)).count(change.db()).await?;
    if count >= MAX_HOSTS as u64 {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "too-many",
            format!("A tenant has at most {MAX_HOSTS} custom hosts. Remove one first."),
        ));
    }
    let row = domains::ActiveModel { host: Set(host), tenant_id: Set(tenant.id), created_at: Set(registry.now()) };
    let row = row.insert(change.db()).await.map_err(|error| match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => {
            Problem::new(StatusCode::CONFLICT, "host-taken", "A tenant has this host already. Choose another.")
                .with_field("host", "is taken")
        }
        _ => error.into(),
    })?;
    let location = format!("/v1/tenants/{}/domains/{}", tenant.id, row.host);
    let answer = Answer::new(StatusCode::CREATED, &Domain::from(row))?.at(location);
    touch_if_seen(&mut change, &tenant)?;
    ticket.record(&change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

/// Takes a custom host away.
#[utoipa::path(
    delete, path = "/v1/tenants/{tenant}/domains/{host}", tag = "domains",
    params(("tenant" = String, Path, description = "Id or slug"), ("host" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody))
)]
pub(super) async fn remove(
    State(api): State<Api>,
    _: Operator,
    Path((tenant, host)): Path<(String, String)>,
) -> Result<StatusCode, Problem> {
    let mut change = api.plane.registry.change().await?;
    let tenant = find_alive(&change, &tenant).await?;
    let gone = domains::Entity::delete_many()
        .filter(domains::Column::Host.eq(self::host(&host).unwrap_or_default()))
        .filter(domains::Column::TenantId.eq(tenant.id))
        .exec(change.db())
        .await?;
    if gone.rows_affected == 0 {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "domain-not-found",
            "The tenant has no such custom host. GET its domains to see those it has.",
        ));
    }
    touch_if_seen(&mut change, &tenant)?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A DNS name of at least two labels (RFC 1123), in lower case; an address is none.
fn host(text: &str) -> Result<String, Problem> {
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_name = host.len() <= 253
        && host.split('.').count() >= 2
        && host.split('.').all(is_label)
        && !host.rsplit('.').next().unwrap_or_default().bytes().all(|b| b.is_ascii_digit());
    if is_name {
        return Ok(host);
    }
    Err(Problem::invalid_field(
        "host",
        "must be a host name of two labels or more, such as pets.example.com, without a port",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_dns_name_in_lower_case_and_no_address() {
        assert_eq!(host("Pets.Acme.Test.").unwrap(), "pets.acme.test");
        for bad in ["", "acme", "127.0.0.1", "a..b", "-a.b", "a.b:80", "pets.acme.test/x", "é.test", "[::1]"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }
}
