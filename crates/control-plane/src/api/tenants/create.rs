//! `POST /v1/tenants`: the tenant and its operation are written in one transaction; the database comes after.

use std::collections::{BTreeMap, HashSet};

use axum::extract::State;
use http::{HeaderMap, StatusCode};
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter};
use serde::Deserialize;
use service::Problem;
use service::problem::ProblemBody;
use tenancy::{Status, TenantId};
use utoipa::ToSchema;

use super::{Tenant, TenantAndOperation, email, not_held, order, plan, slug, slug_taken, text};
use crate::api::auth::Operator;
use crate::api::once::{Answer, Once};
use crate::api::operations::Operation;
use crate::api::precondition::{etag, preferred_wait};
use crate::api::{Api, config};
use crate::audit::Deed;
use crate::provision::{self, Kind};
use crate::registry::entities::{servers, tenants};

/// A new tenant.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateTenant {
    /// Its name in host names, paths and headers.
    #[schema(example = "acme")]
    slug: String,
    /// Its name, for people.
    #[schema(example = "Acme")]
    name: String,
    /// `free` unless told.
    plan: Option<String>,
    /// Where its data must be; anywhere unless told.
    region: Option<String>,
    /// Who administers it.
    admin_email: Option<String>,
    /// Entries of its configuration.
    #[serde(default)]
    config: BTreeMap<String, serde_json::Value>,
}

/// Creates a tenant. With `Prefer: wait=SECONDS` the answer waits until its database is there.
#[utoipa::path(
    post, path = "/v1/tenants", tag = "tenants", request_body = CreateTenant,
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes a repeat harmless"),
           ("Prefer" = Option<String>, Header, description = "`wait=SECONDS`")),
    responses((status = 201, description = "Active", body = TenantAndOperation),
              (status = 202, description = "Being provisioned", body = TenantAndOperation),
              (status = 409, description = "The slug is taken, or no server has room", body = ProblemBody),
              (status = 422, description = "A field is not valid", body = ProblemBody))
)]
pub(crate) async fn create(
    State(api): State<Api>,
    operator: Operator,
    headers: HeaderMap,
    Once { body, mut ticket }: Once<CreateTenant>,
) -> Result<Answer, Problem> {
    let plane = &api.plane;
    let slug = slug(&body.slug)?;
    let name = text("name", &body.name, 200)?;
    let admin_email = body.admin_email.as_deref().map(email).transpose()?;
    let region = body.region.as_deref().map(|region| text("region", region, 100)).transpose()?;
    config::check(&plane.product, &body.config)?;

    let mut change = plane.registry.change().await?;
    let plan = plan(&change, body.plan.as_deref().unwrap_or("free")).await?;
    if let Some(region) = &region {
        let somewhere = servers::Entity::find().filter(servers::Column::Region.eq(region.as_str()));
        if somewhere.one(change.db()).await?.is_none() {
            return Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unknown-region",
                "There is no server in this region. GET /v1/servers lists those there are.",
            )
            .with_field("region", "is unknown"));
        }
    }
    // Told at once where it can be. Whether there still is room is seen when the database is placed.
    if provision::emptiest(change.db(), region.as_deref(), &HashSet::new()).await?.is_none() {
        let why = provision::no_room(region.as_deref());
        return Err(Problem::new(StatusCode::CONFLICT, "no-room", format!("There is no room for the tenant: {why}.")));
    }
    let now = plane.registry.now();
    let row = tenants::ActiveModel {
        id: Set(TenantId::generate().as_uuid()),
        slug: Set(slug.to_string()),
        name: Set(name),
        status: Set(Status::Provisioning.as_str().to_owned()),
        plan: Set(plan),
        region: Set(region),
        admin_email: Set(admin_email),
        server_id: Set(None),
        schema_version: Set(0),
        generation: Set(0),
        sealed_url: Set(None),
        revision: Set(0),
        version: Set(1),
        status_before: Set(None),
        created_at: Set(now),
        updated_at: Set(now),
        delete_after: Set(None),
        tokens_from: Set(None),
        limits: Set(None),
        slug_since: Set(Some(now)),
        reconnects: Set(0),
        reconnected_at: Set(None),
    };
    let row = row.insert(change.db()).await.map_err(slug_taken)?;
    // After it: an insert waits for whoever is about to hold the slug back.
    not_held(&change, &slug, None).await?;
    let made = serde_json::json!({ "tenant": Tenant::of(row.clone(), None), "config": body.config });
    change.audit(Deed::on_tenant("tenant.created", row.id).after(&made));
    for (key, value) in body.config {
        config::put(change.db(), row.id, key, value, now).await?;
    }
    let operation = provision::enqueue(&change, order(Kind::Create, row.id, now, &operator)).await?;
    let (id, tenant) = (row.id, row.clone());
    let accepted = answer(StatusCode::ACCEPTED, Tenant::of(row, None), tenant.version, operation.clone())?;
    let patience = preferred_wait(&headers);
    ticket.record_begun(&change, &accepted, patience.is_some()).await?;
    change.commit().await?;
    plane.wake.ring();

    let Some(patience) = patience else { return Ok(accepted) };
    let ended = provision::wait(plane, operation.id, patience).await?;
    let Some(row) = tenants::Entity::find_by_id(id).one(plane.registry.db()).await? else { return Ok(accepted) };
    let is_active = row.status == Status::Active.as_str();
    let version = row.version;
    let tenant = Tenant::read(plane.registry.db(), row).await?;
    let status = if is_active { StatusCode::CREATED } else { StatusCode::ACCEPTED };
    let answer = answer(status, tenant, version, ended)?;
    ticket.amend(plane, &answer).await?;
    Ok(answer)
}

fn answer(
    status: StatusCode,
    tenant: Tenant,
    version: i64,
    operation: crate::registry::entities::operations::Model,
) -> Result<Answer, Problem> {
    let location = if status == StatusCode::CREATED {
        format!("/v1/tenants/{}", tenant.id)
    } else {
        format!("/v1/operations/{}", operation.id)
    };
    let body = TenantAndOperation { tenant, operation: Operation::ordered(operation) };
    Ok(Answer::new(status, &body)?.at(location).tagged(&etag(version)))
}
