//! Databases that are ready before anybody asks: for each server and schema version a template, migrated once, and copies
//! of it that wait for their tenants with roles and passwords of their own.
//!
//! What is being made is written down first, with a lease. What its maker left half done when it died is dropped, and made
//! anew under another name. A new schema version, and a server that takes no more tenants, let all that is of before go.

mod keep;
mod kept;
mod make;
mod mend;
mod scratch;
mod way;

use sea_orm::sea_query::{LockBehavior, LockType};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect};
use secrecy::SecretString;
use tenancy::seal::{Purpose, Sealed, Subject};
use uuid::Uuid;

use super::steps::StepError;
use crate::engine::DatabaseName;
use crate::plane::Plane;
use crate::registry::change::Change;
use crate::registry::entities::{templates, warm_databases};

#[cfg(test)]
pub(super) use keep::Keeper;
pub(crate) use keep::keep;
pub(crate) use kept::{Kept, MOST as MOST_KEPT};
pub(crate) use make::StockError;
pub(crate) use mend::gaps;
pub(super) use mend::restock;
pub(crate) use scratch::Scratch;
pub(crate) use way::try_way;

/// Being made.
pub(super) const BUILDING: &str = "building";
/// May be copied, or claimed.
pub(super) const READY: &str = "ready";
/// Nobody takes it any more; it is being dropped.
const LEAVING: &str = "leaving";

/// A database that was ready, and is the caller's now.
pub(super) struct Ready {
    pub(super) name: DatabaseName,
    pub(super) url: SecretString,
    pub(super) schema_version: i32,
}

/// For what the URL of a database without a tenant is sealed. Data planes have no key for it.
fn subject(id: Uuid) -> Subject {
    Subject { purpose: Purpose::WarmUrl, id, generation: 1 }
}

/// The server's template for the fleet's schema version, and that.
pub(super) async fn ready_template(plane: &Plane, server: Uuid) -> Result<Option<(DatabaseName, i32)>, StepError> {
    let version = plane.registry.history().await?.schema_version;
    let template = templates::Entity::find_by_id((server, version))
        .filter(templates::Column::State.eq(READY))
        .one(plane.registry.db())
        .await?;
    template.map(|template| Ok((template.name.parse()?, version))).transpose()
}

/// Databases of the fleet's schema version that are ready on the server.
pub(crate) async fn count_ready(plane: &Plane, server: Uuid) -> Result<u64, DbErr> {
    let version = plane.registry.history().await?.schema_version;
    warm_databases::Entity::find()
        .filter(warm_databases::Column::ServerId.eq(server))
        .filter(warm_databases::Column::SchemaVersion.eq(version))
        .filter(warm_databases::Column::State.eq(READY))
        .count(plane.registry.db())
        .await
}

/// Takes a database of the fleet's schema version that is ready on the server, if there is one. Nobody else gets it.
pub(super) async fn take(plane: &Plane, change: &Change, server: Uuid) -> Result<Option<Ready>, StepError> {
    let version = plane.registry.history_in(change.db()).await?.schema_version;
    let oldest = warm_databases::Entity::find()
        .filter(warm_databases::Column::ServerId.eq(server))
        .filter(warm_databases::Column::SchemaVersion.eq(version))
        .filter(warm_databases::Column::State.eq(READY))
        .order_by_asc(warm_databases::Column::CreatedAt)
        .order_by_asc(warm_databases::Column::Name)
        // What another claims at the same moment is passed over, and not waited for.
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .one(change.db())
        .await?;
    let Some(row) = oldest else { return Ok(None) };
    let sealed = Sealed::from_stored(row.sealed_url.as_str());
    let url = plane
        .servers_ring
        .open(subject(row.id), &sealed)
        .map_err(|error| StepError::refused(format!("the URL of a database that was ready does not open: {error}")))?;
    let taken = warm_databases::Entity::delete_many()
        .filter(warm_databases::Column::Name.eq(row.name.as_str()))
        .filter(warm_databases::Column::State.eq(READY))
        .exec(change.db())
        .await?;
    if taken.rows_affected == 0 {
        return Ok(None);
    }
    Ok(Some(Ready { name: row.name.parse()?, url, schema_version: version }))
}
