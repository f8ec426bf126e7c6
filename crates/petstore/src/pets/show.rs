//! `GET /pets/{id}`.

use data_plane::Scoped;
use service::Problem;
use service::extract::{Json, Path};
use service::problem::ProblemBody;
use uuid::Uuid;

use super::{Pet, find};
use crate::product::ReadPets;

/// Shows a pet.
#[utoipa::path(
    get, path = "/pets/{id}", tag = "pets", params(("id" = Uuid, Path)),
    responses((status = 200, body = Pet), (status = 404, body = ProblemBody))
)]
pub(crate) async fn show(session: Scoped<ReadPets>, Path(id): Path<Uuid>) -> Result<Json<Pet>, Problem> {
    Ok(Json(find(&session, id).await?.into()))
}
