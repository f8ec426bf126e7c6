//! The number of a pet's microchip, which not every tenant's database can hold yet: a rollout reaches one tenant after the
//! other, and each is served before and after. Once all have it, the product needs that version, and this room goes.

use data_plane::TenantSession;
use http::StatusCode;
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveModelTrait, ActiveValue::NotSet, EntityTrait, IntoActiveModel, Iterable, QuerySelect, Select};
use service::Problem;

use super::entity::{ActiveModel, Column, Entity, Model};

/// The schema version from which on there is the column.
const SINCE: u32 = 2;

/// Whether the tenant's database holds microchips.
pub(super) fn is_held(session: &TenantSession) -> bool {
    session.schema_version() >= SINCE
}

/// Pets, read as the tenant's database has them. Where it has no microchips yet, a pet has none.
pub(super) fn pets(session: &TenantSession) -> Select<Entity> {
    if is_held(session) {
        return Entity::find();
    }
    let columns = Column::iter().filter(|column| !matches!(column, Column::MicrochipId));
    Entity::find().select_only().columns(columns).expr_as(Expr::value(None::<String>), "microchip_id")
}

/// A new pet's row, as the tenant's database takes it.
pub(super) fn row(session: &TenantSession, pet: Model) -> ActiveModel {
    let mut row = pet.into_active_model().reset_all();
    if !is_held(session) {
        row.microchip_id = NotSet;
    }
    row
}

/// The number as it was told: 15 digits (ISO 11784). Refused where it could not be kept.
pub(super) fn number(session: &TenantSession, told: &str) -> Result<String, Problem> {
    let number = told.trim();
    if number.len() != 15 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Problem::invalid_field("microchip_id", "is the 15 digits of an ISO 11784 microchip"));
    }
    if is_held(session) {
        return Ok(number.to_owned());
    }
    let detail = "This store cannot keep microchips yet: its database is brought up to date soon. Leave `microchip_id` out, or \
                  send the request again later.";
    Err(Problem::new(StatusCode::CONFLICT, "microchips-not-kept-yet", detail)
        .with_field("microchip_id", "cannot be kept yet"))
}
