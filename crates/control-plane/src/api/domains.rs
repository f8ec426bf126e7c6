//! `/v1/tenants/{tenant}/domains`: custom hosts that name a tenant. One leads there only once it was proven to be the tenant's.

pub(super) mod create;
pub(super) mod prove;

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::Serialize;
use service::Problem;
use service::extract::{Json, Path, Query};
use service::problem::ProblemBody;
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::auth::Operator;
use super::config::touch_if_seen;
use super::page::{Page, PageQuery, after, limit};
use super::tenants::{find, find_alive};
use crate::audit::Deed;
use crate::proof::Challenge;
use crate::registry::entities::{domain_claims, domains};

/// A custom host.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Domain {
    host: String,
    created_at: DateTime<Utc>,
    /// Whether it is proven, and so leads to the tenant.
    is_proven: bool,
    /// What proves it, as long as it is not.
    proof: Option<DomainProof>,
}

/// A TXT record to be written into the host's DNS zone.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct DomainProof {
    /// The record's name.
    #[schema(example = "_freehold.pets.acme.test")]
    name: String,
    /// The record's text.
    #[schema(example = "freehold-domain=k5rn…")]
    value: String,
}

impl From<domains::Model> for Domain {
    fn from(row: domains::Model) -> Self {
        Self { host: row.host, created_at: row.created_at, is_proven: true, proof: None }
    }
}

impl From<domain_claims::Model> for Domain {
    fn from(row: domain_claims::Model) -> Self {
        let Challenge { name, value } = Challenge::of(&row.host, &row.token);
        Self { host: row.host, created_at: row.created_at, is_proven: false, proof: Some(DomainProof { name, value }) }
    }
}

/// Lists a tenant's custom hosts, proven and not.
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
    let from = after::<String>(page.cursor.as_deref())?.unwrap_or_default();
    let proven = domains::Entity::find().filter(domains::Column::TenantId.eq(row.id));
    let proven = proven.filter(domains::Column::Host.gt(from.as_str())).order_by_asc(domains::Column::Host);
    let claimed = domain_claims::Entity::find().filter(domain_claims::Column::TenantId.eq(row.id));
    let claimed = claimed.filter(domain_claims::Column::Host.gt(from)).order_by_asc(domain_claims::Column::Host);
    let mut hosts: Vec<Domain> = proven.limit(limit + 1).all(db).await?.into_iter().map(Domain::from).collect();
    hosts.extend(claimed.limit(limit + 1).all(db).await?.into_iter().map(Domain::from));
    hosts.sort_by(|one, other| one.host.cmp(&other.host));
    Ok(Json(Page::of(hosts, limit, |domain| domain.host.clone(), |domain| domain)))
}

/// Takes a custom host away, proven or not.
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
    let host = create::host(&host).unwrap_or_default();
    let mut change = api.plane.registry.change().await?;
    let tenant = find_alive(&change, &tenant).await?;
    let proven = domains::Entity::delete_many()
        .filter(domains::Column::Host.eq(host.as_str()))
        .filter(domains::Column::TenantId.eq::<Uuid>(tenant.id))
        .exec_with_returning(change.db())
        .await?;
    let claimed = domain_claims::Entity::delete_many()
        .filter(domain_claims::Column::Host.eq(host.as_str()))
        .filter(domain_claims::Column::TenantId.eq::<Uuid>(tenant.id))
        .exec_with_returning(change.db())
        .await?;
    let gone: Vec<Domain> = proven.into_iter().map(Into::into).chain(claimed.into_iter().map(Into::into)).collect();
    if gone.is_empty() {
        return Err(no_such_domain());
    }
    change.audit(Deed::on_tenant("domain.removed", tenant.id).of(host.as_str()).before(&gone));
    touch_if_seen(&mut change, &tenant)?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

fn no_such_domain() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "domain-not-found",
        "The tenant has no such custom host. GET its domains to see those it has.",
    )
}

fn taken() -> Problem {
    Problem::new(StatusCode::CONFLICT, "host-taken", "A tenant has this host already. Choose another.")
        .with_field("host", "is taken")
}
