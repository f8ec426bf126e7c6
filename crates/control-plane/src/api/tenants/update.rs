//! `PATCH /v1/tenants/{tenant}`: what is left out stays. The database is not touched.

use axum::extract::State;
use http::HeaderMap;
use sea_orm::ActiveValue::Set;
use serde::Deserialize;
use service::Problem;
use service::extract::{Json, Path, present};
use service::problem::ProblemBody;
use tenancy::TenantLimits;
use utoipa::ToSchema;

use super::{Tenant, email, find_alive, not_held, plan, save, shown, slug, status_of, text};
use crate::api::Api;
use crate::api::auth::Operator;
use crate::api::once::Answer;
use crate::api::plans::own_limits;
use crate::api::precondition::if_match;
use crate::audit::Deed;
use crate::registry::slugs;

/// What changes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateTenant {
    /// Another slug. The old one leads nowhere, and the control plane holds it back as it does on deletion: until
    /// `tenants.hold_slug_seconds` have passed, no other tenant can take it. This tenant can take it back. Signed tokens that
    /// name the tenant by its slug count only if they were issued after the tenant took it.
    #[serde(default, deserialize_with = "present")]
    slug: Option<String>,
    /// Another name.
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    /// Another plan.
    #[serde(default, deserialize_with = "present")]
    plan: Option<String>,
    /// Another administrator; null for none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    #[allow(clippy::option_option, reason = "absent, null and a value are three things")]
    admin_email: Option<Option<String>>,
    /// Limits of its own, in place of the plan's, all of them anew; null for the plan's alone.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<TenantLimits>)]
    #[allow(clippy::option_option, reason = "absent, null and a value are three things")]
    limits: Option<Option<TenantLimits>>,
}

/// Changes a tenant's slug, name, plan, limits or administrator.
#[utoipa::path(
    patch, path = "/v1/tenants/{tenant}", tag = "tenants", request_body = UpdateTenant,
    params(("tenant" = String, Path, description = "Id or slug"), ("If-Match" = Option<String>, Header)),
    responses((status = 200, body = Tenant), (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
              (status = 412, description = "It was changed since", body = ProblemBody), (status = 422, body = ProblemBody))
)]
pub(crate) async fn update(
    State(api): State<Api>,
    _: Operator,
    Path(tenant): Path<String>,
    headers: HeaderMap,
    Json(body): Json<UpdateTenant>,
) -> Result<Answer, Problem> {
    let registry = &api.plane.registry;
    let slug = body.slug.as_deref().map(slug).transpose()?;
    let name = body.name.as_deref().map(|name| text("name", name, 200)).transpose()?;
    let admin_email = body.admin_email.map(|it| it.as_deref().map(email).transpose()).transpose()?;
    let limits = body.limits.map(|it| own_limits(&it.unwrap_or_default())).transpose()?;
    let mut change = registry.change().await?;
    let plan = match body.plan {
        Some(name) => Some(plan(&change, &name).await?),
        None => None,
    };
    let row = find_alive(&change, &tenant).await?;
    if_match(&headers, row.version)?;
    let (id, is_visible) = (row.id, status_of(&row)?.is_visible());
    let is_news = slug.is_some() || plan.is_some() || limits.is_some();
    let was = row.clone();
    let new_slug = slug.filter(|slug| slug.as_str() != was.slug);
    let now = registry.now();
    let row = save(&change, row, now, |row| {
        if let Some(slug) = &new_slug {
            row.slug = Set(slug.to_string());
            row.slug_since = Set(Some(now));
        }
        if let Some(name) = name {
            row.name = Set(name);
        }
        if let Some(plan) = plan {
            row.plan = Set(plan);
        }
        if let Some(admin_email) = admin_email {
            row.admin_email = Set(admin_email);
        }
        if let Some(limits) = limits {
            row.limits = Set(limits);
        }
    })
    .await?;
    if let Some(slug) = &new_slug {
        not_held(&change, slug, Some(id)).await?;
        slugs::take_back(&change, slug.as_str(), id).await?;
        slugs::hold(&change, &was, api.plane.hold_slugs).await?;
    }
    change.audit(Deed::on_tenant("tenant.changed", id).changed(&Tenant::of(was, None), &Tenant::of(row.clone(), None)));
    if is_news && is_visible {
        change.touch(id);
    }
    change.commit().await?;
    shown(registry.db(), row).await
}
