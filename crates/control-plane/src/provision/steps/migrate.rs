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
        // A database that was ready has it already, unless the fleet went on meanwhile.
        let database = work.claimed_row(change.db()).await?;
        let has = work.tenant_in(change.db()).await?.schema_version;
        Ok(database.is_warm && has == work.plane.registry.history_in(change.db()).await?.schema_version)
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let fleet = work.plane.registry.history().await?.schema_version;
        let contained = work.plane.schema.migrations().len();
        if usize::try_from(fleet).unwrap_or(0) > contained {
            return Err(StepError::refused(format!(
                "the fleet is at schema version {fleet} and this control plane contains {contained}: upgrade it, then \
                 retry"
            )));
        }
        let version = work.entered().await?.migrate(work.plane.schema.as_ref(), fleet.unsigned_abs()).await?;
        work.note_schema_version(version);
        Ok(())
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        match work.schema_version() {
            Some(version) => record(change, work, i32::try_from(version).unwrap_or(i32::MAX)).await,
            // It joined: what was claimed was recorded then.
            None => Ok(()),
        }
    }

    async fn record_undo(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        record(change, work, 0).await
    }
}

/// The version that the database has, for the route.
async fn record(change: &Change, work: &Work, version: i32) -> Result<(), StepError> {
    tenants::Entity::update_many()
        .col_expr(tenants::Column::SchemaVersion, Expr::value(version))
        .filter(tenants::Column::Id.eq(work.tenant_id()))
        .exec(change.db())
        .await?;
    Ok(())
}
