//! Switch: makes the new URL the tenant's own, and tells data planes. From here on there is no way back.

use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter};
use tenancy::Status;

use super::{Step, StepError};
use crate::provision::work::Work;
use crate::registry::change::Change;
use crate::registry::entities::{databases, tenants};

pub(super) struct Switch;

#[async_trait]
impl Step for Switch {
    fn name(&self) -> &'static str {
        "switch"
    }

    async fn joins(&self, _: &Work, _: &Change) -> Result<bool, StepError> {
        Ok(true)
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        let row = work.locked_row(change).await?;
        let (Some(slot), Some(generation), Some(sealed)) = (row.next_slot, row.next_generation, row.next_sealed_url)
        else {
            return Err(StepError::refused("the tenant's next database URL is gone from the registry"));
        };
        // A program of an older version wrote none: the move of its server looks at this one again.
        let address = row.next_address_number.unwrap_or_default();
        let now = work.plane.registry.now();
        let visible = Status::ALL.into_iter().filter(|status| status.is_visible()).map(Status::as_str);
        let switched = tenants::Entity::update_many()
            .col_expr(tenants::Column::SealedUrl, Expr::value(sealed.as_str()))
            .col_expr(tenants::Column::Generation, Expr::value(generation))
            .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
            .col_expr(tenants::Column::UpdatedAt, Expr::value(now))
            .filter(tenants::Column::Id.eq(work.tenant_id()))
            .filter(tenants::Column::Status.is_in(visible))
            .exec(change.db())
            .await?;
        if switched.rows_affected == 0 {
            return Err(StepError::refused("the tenant has no credentials to rotate any more"));
        }
        databases::Entity::update_many()
            .col_expr(databases::Column::Slot, Expr::value(slot))
            .col_expr(databases::Column::Generation, Expr::value(generation))
            .col_expr(databases::Column::SealedUrl, Expr::value(sealed))
            .col_expr(databases::Column::NextSlot, Expr::value(None::<String>))
            .col_expr(databases::Column::NextGeneration, Expr::value(None::<i64>))
            .col_expr(databases::Column::NextSealedUrl, Expr::value(None::<String>))
            .col_expr(databases::Column::AddressNumber, Expr::value(address))
            .col_expr(databases::Column::NextAddressNumber, Expr::value(None::<i64>))
            .col_expr(databases::Column::RotatedAt, Expr::value(now))
            .filter(databases::Column::TenantId.eq(work.tenant_id()))
            .exec(change.db())
            .await?;
        change.touch(work.tenant_id());
        Ok(())
    }
}
