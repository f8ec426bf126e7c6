//! Pets: what one is, how one is found, and what its fields may hold.

pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod entity;
pub(crate) mod list;
mod microchip;
pub(crate) mod show;
pub(crate) mod update;

use chrono::{DateTime, SubsecRound as _, Utc};
use data_plane::TenantSession;
use http::StatusCode;
use sea_orm::{ColumnTrait, QueryFilter};
use serde::Serialize;
use service::Problem;
use utoipa::ToSchema;
use uuid::Uuid;

/// A pet.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Pet {
    id: Uuid,
    name: String,
    species: String,
    breed: Option<String>,
    /// The number of its microchip; left out where none is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    microchip_id: Option<String>,
    created_at: DateTime<Utc>,
    /// When it was deleted; only seen in lists that include deleted pets.
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<DateTime<Utc>>,
}

impl From<entity::Model> for Pet {
    fn from(row: entity::Model) -> Self {
        Self {
            id: row.id,
            name: row.name,
            species: row.species,
            breed: row.breed,
            microchip_id: row.microchip_id,
            created_at: row.created_at,
            deleted_at: row.deleted_at,
        }
    }
}

/// A pet that is not deleted.
async fn find(session: &TenantSession, id: Uuid) -> Result<entity::Model, Problem> {
    let pet = microchip::pets(session).filter(entity::Column::Id.eq(id)).filter(entity::Column::DeletedAt.is_null());
    pet.one(session.db()).await?.ok_or_else(not_found)
}

fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "pet-not-found", "There is no such pet. GET /api/pets lists those there are.")
}

/// Now, as precise as every database keeps it: what is answered is what will be read again.
pub(crate) fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}

/// A text of 1 to `longest` characters, none of them a control character.
fn text(field: &'static str, text: &str, longest: usize) -> Result<String, Problem> {
    let trimmed = text.trim();
    if (1..=longest).contains(&trimmed.chars().count()) && !trimmed.chars().any(char::is_control) {
        return Ok(trimmed.to_owned());
    }
    Err(Problem::invalid_field(field, format!("has 1 to {longest} characters, and no control characters")))
}

fn name(value: &str) -> Result<String, Problem> {
    text("name", value, 100)
}

fn species(value: &str) -> Result<String, Problem> {
    text("species", value, 50)
}

fn breed(value: &str) -> Result<String, Problem> {
    text("breed", value, 100)
}
