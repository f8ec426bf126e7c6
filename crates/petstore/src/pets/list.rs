//! `GET /pets`: pages in the order of creation. The tenant's configuration decides whether deleted pets are shown.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_plane::Scoped;
use http::StatusCode;
use sea_orm::{ColumnTrait, QueryFilter, QueryOrder, QuerySelect};
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::{Json, Query};
use service::problem::ProblemBody;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{Pet, entity, microchip};
use crate::product::{INCLUDE_DELETED_PETS, ReadPets};

const LARGEST: u64 = 100;

/// Which pets.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct PetsQuery {
    /// Of this species.
    species: Option<String>,
    /// With this microchip; none where the store keeps no microchips yet.
    microchip_id: Option<String>,
    /// Items at most, 1 to 100; 20 unless told.
    limit: Option<u64>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One page of pets.
#[derive(Serialize, ToSchema)]
pub(crate) struct Pets {
    items: Vec<Pet>,
    /// Where the next page begins; null on the last.
    next_cursor: Option<String>,
}

/// Lists pets.
#[utoipa::path(
    get, path = "/pets", tag = "pets", params(PetsQuery),
    responses((status = 200, body = Pets), (status = 400, description = "Bad cursor or limit", body = ProblemBody))
)]
pub(crate) async fn list(session: Scoped<ReadPets>, Query(query): Query<PetsQuery>) -> Result<Json<Pets>, Problem> {
    let limit = query.limit.unwrap_or(20);
    if !(1..=LARGEST).contains(&limit) {
        return Err(invalid("limit", "must be from 1 to 100"));
    }
    let mut pets = microchip::pets(&session).order_by_asc(entity::Column::Id).limit(limit + 1);
    if let Some(cursor) = query.cursor {
        pets = pets.filter(entity::Column::Id.gt(after(&cursor)?));
    }
    if let Some(species) = query.species {
        pets = pets.filter(entity::Column::Species.eq(species));
    }
    match query.microchip_id {
        Some(_) if !microchip::is_held(&session) => return Ok(Json(Pets { items: Vec::new(), next_cursor: None })),
        Some(number) => pets = pets.filter(entity::Column::MicrochipId.eq(number)),
        None => {}
    }
    if !session.config().get::<bool>(INCLUDE_DELETED_PETS)? {
        pets = pets.filter(entity::Column::DeletedAt.is_null());
    }
    let mut rows = pets.all(session.db()).await?;
    let has_more = rows.len() as u64 > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next_cursor = rows.last().filter(|_| has_more).map(|last| URL_SAFE_NO_PAD.encode(last.id.as_bytes()));
    Ok(Json(Pets { items: rows.into_iter().map(Pet::from).collect(), next_cursor }))
}

fn after(cursor: &str) -> Result<Uuid, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let id = bytes.and_then(|bytes| Uuid::from_slice(&bytes).ok());
    id.ok_or_else(|| invalid("cursor", "is not a next_cursor of this list: begin without one"))
}

fn invalid(field: &str, detail: &str) -> Problem {
    let whole = format!("The query string is not valid: `{field}` {detail}.");
    Problem::new(StatusCode::BAD_REQUEST, "invalid-query", whole).with_field(field, detail)
}
