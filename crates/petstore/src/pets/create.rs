//! `POST /pets`.

use data_plane::Scoped;
use http::{StatusCode, header};
use sea_orm::EntityTrait;
use serde::Deserialize;
use service::Problem;
use service::extract::Json;
use service::problem::ProblemBody;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Pet, breed, entity, microchip, name, now, species};
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
    /// 15 digits (ISO 11784). 409 where the store cannot keep it yet.
    #[schema(example = "985141006580319")]
    microchip_id: Option<String>,
}

/// Creates a pet.
#[utoipa::path(
    post, path = "/pets", tag = "pets", request_body = CreatePet,
    responses(
        (status = 201, body = Pet),
        (status = 409, description = "The store cannot keep microchips yet", body = ProblemBody),
        (status = 422, description = "A field is not valid", body = ProblemBody)
    )
)]
pub(crate) async fn create(
    session: Scoped<WritePets>,
    Json(body): Json<CreatePet>,
) -> Result<(StatusCode, [(header::HeaderName, String); 1], Json<Pet>), Problem> {
    let pet = entity::Model {
        id: Uuid::now_v7(),
        name: name(&body.name)?,
        species: species(&body.species)?,
        breed: body.breed.as_deref().map(breed).transpose()?,
        microchip_id: body.microchip_id.as_deref().map(|told| microchip::number(&session, told)).transpose()?,
        created_at: now(),
        deleted_at: None,
    };
    // What it would answer is what was told, and it would name columns that may not be there yet.
    entity::Entity::insert(microchip::row(&session, pet.clone())).exec_without_returning(session.db()).await?;
    let location = format!("/api/pets/{}", pet.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(pet.into())))
}
