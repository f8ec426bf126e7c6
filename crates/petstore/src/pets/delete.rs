//! `DELETE /pets/{id}`: the pet is marked, and shown no longer.

use data_plane::TenantSession;
use http::StatusCode;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, IntoActiveModel};
use service::Problem;
use service::extract::Path;
use service::problem::ProblemBody;
use uuid::Uuid;

use super::{find, now};

/// Deletes a pet.
#[utoipa::path(
    delete, path = "/pets/{id}", tag = "pets", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404, body = ProblemBody))
)]
pub(crate) async fn delete(session: TenantSession, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    let mut pet = find(session.db(), id).await?.into_active_model();
    pet.deleted_at = Set(Some(now()));
    pet.update(session.db()).await?;
    Ok(StatusCode::NO_CONTENT)
}
