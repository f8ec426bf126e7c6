//! Migrate: brings the database to the fleet's schema version. Never past what this program contains.

use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter};

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

    async fn run(&self, work: &Work) -> Result<Change, StepError> {
        let fleet = work.plane.registry.history().await?.schema_version;
        let contained = work.plane.schema.migrations().len();
        if usize::try_from(fleet).unwrap_or(0) > contained {
            return Err(StepError::refused(format!(
                "the fleet is at schema version {fleet} and this control plane contains {contained}: upgrade it, then \
                 retry"
            )));
        }
        let database = work.claimed().await?;
        let schema = work.plane.schema.as_ref();
        let version = database.engine.migrate(&database.name, schema, fleet.unsigned_abs()).await?;
        let change = work.change().await?;
        record(&change, work, i32::try_from(version).unwrap_or(i32::MAX)).await?;
        Ok(change)
    }

    async fn undo(&self, work: &Work) -> Result<Change, StepError> {
        let change = work.change().await?;
        record(&change, work, 0).await?;
        Ok(change)
    }
}

/// The version that the database has, for the route.
async fn record(change: &Change, work: &Work, version: i32) -> Result<(), DbErr> {
    tenants::Entity::update_many()
        .col_expr(tenants::Column::SchemaVersion, Expr::value(version))
        .filter(tenants::Column::Id.eq(work.tenant_id()))
        .exec(change.db())
        .await?;
    Ok(())
}
