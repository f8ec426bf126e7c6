//! Fix tenant: puts right what the doctor finds of the tenant now. Nothing else is worked on of it meanwhile.

use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter};

use super::{Step, StepError};
use crate::doctor::Doctor;
use crate::provision::work::Work;
use crate::registry::change::Change;
use crate::registry::entities::tenants;

pub(super) struct FixTenant;

#[async_trait]
impl Step for FixTenant {
    fn name(&self) -> &'static str {
        "fix_tenant"
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let version = Box::pin(Doctor::new(work.plane.clone()).cure_tenant(work.tenant_id())).await?;
        if let Some(version) = version {
            work.note_schema_version(i32::try_from(version).unwrap_or(i32::MAX));
        }
        Ok(())
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        let Some(version) = work.take_schema_version() else { return Ok(()) };
        tenants::Entity::update_many()
            .col_expr(tenants::Column::SchemaVersion, Expr::value(version))
            .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
            .col_expr(tenants::Column::UpdatedAt, Expr::value(work.plane.registry.now()))
            .filter(tenants::Column::Id.eq(work.tenant_id()))
            .exec(change.db())
            .await?;
        // Data planes decide by it whether they can serve the tenant.
        change.touch(work.tenant_id());
        Ok(())
    }
}
