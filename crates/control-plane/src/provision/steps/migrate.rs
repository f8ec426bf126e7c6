//! Migrate: brings the database to the fleet's schema version. Never past what this program contains.

use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};

use super::{Step, StepError};
use crate::provision::work::Work;
use crate::registry::change::Change;
use crate::registry::entities::tenants;

pub(super) struct Migrate;

#[async_trait]
impl Step for Migrate {
    fn name(&self) -> &'static str {
        "migrate"
    }

    async fn joins(&self, work: &Work, change: &Change) -> Result<bool, StepError> {
        // A database that was ready has it already, and one made from a template, unless the fleet went on meanwhile.
        let has = work.tenant_in(change.db()).await?.schema_version;
        Ok(has > 0 && has == work.plane.registry.history_in(change.db()).await?.schema_version)
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        migrate_to(work, work.plane.registry.history().await?.schema_version).await
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        record_version(work, change).await
    }

    async fn record_undo(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        record(change, work, 0).await
    }
}

/// Brings the database to the fleet's version, and notes which it has then.
pub(super) async fn migrate_to(work: &Work, fleet: i32) -> Result<(), StepError> {
    let contained = work.plane.schema.migrations().len();
    if usize::try_from(fleet).unwrap_or(0) > contained {
        return Err(StepError::refused(format!(
            "the fleet is at schema version {fleet} and this control plane contains {contained}: upgrade it, then retry"
        )));
    }
    let version = work.entered().await?.migrate(work.plane.schema.as_ref(), fleet.unsigned_abs()).await?;
    work.note_schema_version(i32::try_from(version).unwrap_or(i32::MAX));
    Ok(())
}

/// Writes the version that the database was found to have, or was made with, if this walk knows. One that was ready was
/// written down when it was claimed.
pub(super) async fn record_version(work: &Work, change: &Change) -> Result<(), StepError> {
    match work.take_schema_version() {
        Some(version) => record(change, work, version).await,
        None => Ok(()),
    }
}

/// The version that the database has, for the route.
pub(super) async fn record(change: &Change, work: &Work, version: i32) -> Result<(), StepError> {
    tenants::Entity::update_many()
        .col_expr(tenants::Column::SchemaVersion, Expr::value(version))
        .filter(tenants::Column::Id.eq(work.tenant_id()))
        .exec(change.db())
        .await?;
    Ok(())
}
