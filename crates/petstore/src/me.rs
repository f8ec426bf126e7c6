//! `GET /me`: for whom a credential speaks.

use data_plane::TenantSession;
use serde::Serialize;
use service::extract::Json;
use tenancy::{Plan, TenantId};
use utoipa::ToSchema;

/// Tenant, plan and caller.
#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    tenant: MyTenant,
    plan: Plan,
    principal: MyPrincipal,
}

#[derive(Serialize, ToSchema)]
struct MyTenant {
    id: TenantId,
    slug: String,
}

#[derive(Serialize, ToSchema)]
struct MyPrincipal {
    subject: String,
    scopes: Vec<String>,
}

/// Tells tenant, plan and caller.
#[utoipa::path(get, path = "/me", tag = "me", responses((status = 200, body = Me)))]
pub(crate) async fn me(session: TenantSession) -> Json<Me> {
    let principal = session.principal();
    Json(Me {
        tenant: MyTenant { id: session.tenant(), slug: session.slug().to_string() },
        plan: session.plan().clone(),
        principal: MyPrincipal { subject: principal.subject().to_owned(), scopes: principal.scopes().to_vec() },
    })
}
