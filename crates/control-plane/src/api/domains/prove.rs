//! `POST /v1/tenants/{tenant}/domains/{host}/prove`: looks whether a claimed host is the tenant's, and lets it lead there.

use axum::extract::State;
use http::StatusCode;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, EntityTrait, SqlErr};
use service::Problem;
use service::extract::{Json, Path};
use service::problem::ProblemBody;

use super::create::host;
use super::{Domain, no_such_domain, taken};
use crate::api::Api;
use crate::api::auth::Operator;
use crate::api::config::touch_if_seen;
use crate::api::tenants::{find, find_alive};
use crate::audit::{Deed, changes_nothing};
use crate::proof::{Challenge, Unproven};
use crate::registry::entities::{domain_claims, domains};

/// Looks for the DNS record that proves a custom host. Once it was seen the host leads to the tenant, and the record may go.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/domains/{host}/prove", tag = "domains",
    params(("tenant" = String, Path, description = "Id or slug"), ("host" = String, Path)),
    responses((status = 200, body = Domain), (status = 404, body = ProblemBody),
              (status = 409, description = "The record is not there, or another tenant has proven the host", body = ProblemBody),
              (status = 503, description = "The name servers do not answer", body = ProblemBody))
)]
pub(crate) async fn prove(
    State(api): State<Api>,
    _: Operator,
    Path((tenant, name)): Path<(String, String)>,
) -> Result<Json<Domain>, Problem> {
    let (plane, db) = (&api.plane, api.plane.registry.db());
    let name = host(&name).unwrap_or_default();
    let row = find(db, &tenant).await?;
    let proven = domains::Entity::find_by_id(name.as_str()).one(db).await?;
    if let Some(proven) = proven.filter(|proven| proven.tenant_id == row.id) {
        changes_nothing();
        return Ok(Json(proven.into()));
    }
    let claim = domain_claims::Entity::find_by_id((row.id, name)).one(db).await?.ok_or_else(no_such_domain)?;
    // Before the transaction: name servers are slow.
    let challenge = Challenge::of(&claim.host, &claim.token);
    plane.proofs.see(&challenge).await.map_err(|unproven| refused(&challenge, &unproven))?;

    let mut change = plane.registry.change().await?;
    let row = find_alive(&change, &tenant).await?;
    // Taken away meanwhile, or proven by a twin of this request.
    let gone = domain_claims::Entity::delete_by_id((row.id, claim.host.clone())).exec(change.db()).await?;
    if gone.rows_affected == 0 {
        return Err(no_such_domain());
    }
    let created_at = Set(change.now());
    let domain = domains::ActiveModel { host: Set(claim.host), tenant_id: Set(row.id), created_at };
    let domain: Domain = domain.insert(change.db()).await.map(Into::into).map_err(|error| match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => taken(),
        _ => error.into(),
    })?;
    change.audit(Deed::on_tenant("domain.proven", row.id).of(domain.host.as_str()).after(&domain));
    touch_if_seen(&mut change, &row)?;
    change.commit().await?;
    Ok(Json(domain))
}

fn refused(challenge: &Challenge, unproven: &Unproven) -> Problem {
    let Challenge { name, value } = challenge;
    let detail = format!(
        "The host is not proven: {unproven}. Write a TXT record {name} with the text {value}, and send this again once your \
         name servers tell it."
    );
    match unproven {
        Unproven::Unanswered(_) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "name-servers-silent", detail)
            .with_retry_after(std::time::Duration::from_secs(10)),
        Unproven::NoRecord | Unproven::Other(_) => Problem::new(StatusCode::CONFLICT, "host-unproven", detail),
    }
}
