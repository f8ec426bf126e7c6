//! `POST /pets`.

use data_plane::Scoped;
use http::{StatusCode, header};
use sea_orm::{ActiveModelTrait, ActiveValue::Set};
use serde::Deserialize;
use service::Problem;
use service::extract::Json;
use service::problem::ProblemBody;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Pet, breed, entity, name, now, species};
use crate::product::WritePets;

/// A new pet.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreatePet {
    #[schema(example = "Rex")]
    name: String,
    #[schema(example = "dog")]
    species: String,
    breed: Option<String>,
}

/// Creates a pet.
#[utoipa::path(
    post, path = "/pets", tag = "pets", request_body = CreatePet,
    responses((status = 201, body = Pet), (status = 422, description = "A field is not valid", body = ProblemBody))
)]
pub(crate) async fn create(
    session: Scoped<WritePets>,
    Json(body): Json<CreatePet>,
) -> Result<(StatusCode, [(header::HeaderName, String); 1], Json<Pet>), Problem> {
    let pet = entity::ActiveModel {
        id: Set(Uuid::now_v7()),
        name: Set(name(&body.name)?),
        species: Set(species(&body.species)?),
        breed: Set(body.breed.as_deref().map(breed).transpose()?),
        created_at: Set(now()),
        deleted_at: Set(None),
    };
    let pet = pet.insert(session.db()).await?;
    let location = format!("/api/pets/{}", pet.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(pet.into())))
}
