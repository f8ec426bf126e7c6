//! `PATCH /pets/{id}`: what is left out stays; `"breed": null` takes the breed away (RFC 7396).

use data_plane::Scoped;
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter};
use serde::Deserialize;
use service::Problem;
use service::extract::{Json, Path, present};
use service::problem::ProblemBody;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Pet, breed, entity, find, microchip, name, species};
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
    /// 15 digits (ISO 11784), or null for none. 409 where the store cannot keep it yet.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, example = "985141006580319")]
    #[allow(clippy::option_option, reason = "absent, null and a value are three things")]
    microchip_id: Option<Option<String>>,
}

/// Changes a pet.
#[utoipa::path(
    patch, path = "/pets/{id}", tag = "pets", request_body = UpdatePet, params(("id" = Uuid, Path)),
    responses((status = 200, body = Pet), (status = 404, body = ProblemBody),
        (status = 409, description = "The store cannot keep microchips yet", body = ProblemBody), (status = 422, body = ProblemBody))
)]
pub(crate) async fn update(
    session: Scoped<WritePets>,
    Path(id): Path<Uuid>,
    Json(body): Json<UpdatePet>,
) -> Result<Json<Pet>, Problem> {
    let mut pet = find(&session, id).await?.into_active_model();
    if let Some(value) = body.name {
        pet.name = Set(name(&value)?);
    }
    if let Some(value) = body.species {
        pet.species = Set(species(&value)?);
    }
    if let Some(value) = body.breed {
        pet.breed = Set(value.as_deref().map(breed).transpose()?);
    }
    match body.microchip_id {
        Some(Some(told)) => pet.microchip_id = Set(Some(microchip::number(&session, &told)?)),
        Some(None) if microchip::is_held(&session) => pet.microchip_id = Set(None),
        _ => {}
    }
    let changed = entity::Entity::update_many().set(pet).filter(entity::Column::Id.eq(id));
    changed.exec(session.db()).await?;
    Ok(Json(find(&session, id).await?.into()))
}
