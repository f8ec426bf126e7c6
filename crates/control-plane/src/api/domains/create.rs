//! `POST /v1/tenants/{tenant}/domains`: claims a custom host, which leads to the tenant once it is proven.

use axum::extract::State;
use http::StatusCode;
use rand::Rng as _;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, PaginatorTrait, QueryFilter, SqlErr};
use serde::Deserialize;
use service::Problem;
use service::extract::Path;
use service::problem::ProblemBody;
use tenancy::route::MAX_HOSTS;
use utoipa::ToSchema;

use super::{Domain, taken};
use crate::api::Api;
use crate::api::config::touch_if_seen;
use crate::api::once::{Answer, Once};
use crate::api::tenants::find_alive;
use crate::audit::Deed;
use crate::registry::entities::{domain_claims, domains};

/// A new custom host.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateDomain {
    /// A host name without a port; upper case is made lower.
    #[schema(example = "pets.acme.test")]
    host: String,
}

/// Gives a tenant a custom host. The answer says which DNS record proves that it is the tenant's: until then it leads nowhere,
/// and holds back nobody who can prove it.
#[utoipa::path(
    post, path = "/v1/tenants/{tenant}/domains", tag = "domains", request_body = CreateDomain,
    params(("tenant" = String, Path, description = "Id or slug"), ("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Domain), (status = 404, body = ProblemBody),
              (status = 409, description = "Some tenant has the host", body = ProblemBody), (status = 422, body = ProblemBody))
)]
pub(crate) async fn create(
    State(api): State<Api>,
    Path(tenant): Path<String>,
    Once { body, mut ticket }: Once<CreateDomain>,
) -> Result<Answer, Problem> {
    let (registry, proofs) = (&api.plane.registry, &api.plane.proofs);
    let host = host(&body.host)?;
    if proofs.is_ours(&host) {
        let detail = "lies under the platform's own domain: a tenant has its slug there";
        return Err(Problem::invalid_field("host", detail));
    }
    let mut change = registry.change().await?;
    let tenant = find_alive(&change, &tenant).await?;
    let proven = domains::Entity::find().filter(domains::Column::TenantId.eq(tenant.id)).count(change.db()).await?;
    let claimed = domain_claims::Entity::find().filter(domain_claims::Column::TenantId.eq(tenant.id));
    if proven + claimed.count(change.db()).await? >= MAX_HOSTS as u64 {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "too-many",
            format!("A tenant has at most {MAX_HOSTS} custom hosts. Remove one first."),
        ));
    }
    if domains::Entity::find_by_id(host.as_str()).one(change.db()).await?.is_some() {
        return Err(taken());
    }
    let unique = |error: sea_orm::DbErr| match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => taken(),
        _ => error.into(),
    };
    let created_at = Set(registry.now());
    let domain: Domain = if proofs.are_needed() {
        let (tenant_id, token) = (Set(tenant.id), Set(token()));
        let row = domain_claims::ActiveModel { host: Set(host), tenant_id, token, created_at };
        row.insert(change.db()).await.map_err(unique)?.into()
    } else {
        let row = domains::ActiveModel { host: Set(host), tenant_id: Set(tenant.id), created_at };
        row.insert(change.db()).await.map_err(unique)?.into()
    };
    change.audit(Deed::on_tenant("domain.added", tenant.id).of(domain.host.as_str()).after(&domain));
    let location = format!("/v1/tenants/{}/domains/{}", tenant.id, domain.host);
    let answer = Answer::new(StatusCode::CREATED, &domain)?.at(location);
    touch_if_seen(&mut change, &tenant)?;
    ticket.record(&change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

/// 160 random bits: nobody else's record says the same by chance.
fn token() -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut rng = rand::rng();
    (0..32).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}

/// A DNS name of at least two labels (RFC 1123), in lower case; an address is none.
pub(super) fn host(text: &str) -> Result<String, Problem> {
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
