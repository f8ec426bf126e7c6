//! `PATCH /pets/{id}`: what is left out stays; `"breed": null` takes the breed away (RFC 7396).

use data_plane::Scoped;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, IntoActiveModel};
use serde::Deserialize;
use service::Problem;
use service::extract::{Json, Path, present};
use service::problem::ProblemBody;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Pet, breed, find, name, species};
use crate::product::WritePets;

/// What changes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdatePet {
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    species: Option<String>,
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    #[allow(clippy::option_option, reason = "absent, null and a value are three things")]
    breed: Option<Option<String>>,
}

/// Changes a pet.
#[utoipa::path(
    patch, path = "/pets/{id}", tag = "pets", request_body = UpdatePet, params(("id" = Uuid, Path)),
    responses((status = 200, body = Pet), (status = 404, body = ProblemBody), (status = 422, body = ProblemBody))
)]
pub(crate) async fn update(
    session: Scoped<WritePets>,
    Path(id): Path<Uuid>,
    Json(body): Json<UpdatePet>,
) -> Result<Json<Pet>, Problem> {
    let mut pet = find(session.db(), id).await?.into_active_model();
    if let Some(value) = body.name {
        pet.name = Set(name(&value)?);
    }
    if let Some(value) = body.species {
        pet.species = Set(species(&value)?);
    }
    if let Some(value) = body.breed {
        pet.breed = Set(value.as_deref().map(breed).transpose()?);
    }
    Ok(Json(pet.update(session.db()).await?.into()))
}
