//! New URL: chooses the login role that is not in use, and a password for it. Both are written down before the server
//! hears of them.

use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use tenancy::Status;

use super::{Step, StepError};
use crate::engine::{Slot, new_password};
use crate::provision::work::{Work, url_subject};
use crate::registry::change::Change;
use crate::registry::entities::databases;

pub(super) struct NewUrl;

#[async_trait]
impl Step for NewUrl {
    fn name(&self) -> &'static str {
        "new_url"
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        let tenant = work.tenant_in(change.db()).await?;
        if !tenant.status.parse::<Status>().is_ok_and(Status::is_visible) {
            return Err(StepError::refused("the tenant has no credentials to rotate any more"));
        }
        // A server that moves has its databases' URLs follow in between, each with another generation.
        let server = work.claimed_row(change.db()).await?.server_id;
        let server = work.address_of(change, server).await?;
        let row = work.locked_row(change).await?;
        let engine = work.plane.engine(&server)?;
        let slot = row.slot.parse::<Slot>()?.other();
        let generation = row.generation.unsigned_abs() + 1;
        let sealed = {
            let mut rng = rand::rng();
            let url = engine.url(&row.name.parse()?, slot, &new_password(&mut rng));
            work.plane.tenants_ring.seal(url_subject(tenant.id, generation), &url, &mut rng)
        };
        databases::Entity::update_many()
            .col_expr(databases::Column::NextSlot, Expr::value(slot.as_str()))
            .col_expr(databases::Column::NextGeneration, Expr::value(generation.cast_signed()))
            .col_expr(databases::Column::NextSealedUrl, Expr::value(sealed.as_stored()))
            .col_expr(databases::Column::NextAddressNumber, Expr::value(server.address_number))
            .filter(databases::Column::TenantId.eq(tenant.id))
            .exec(change.db())
            .await?;
        Ok(())
    }

    async fn record_undo(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        databases::Entity::update_many()
            .col_expr(databases::Column::NextSlot, Expr::value(None::<String>))
            .col_expr(databases::Column::NextGeneration, Expr::value(None::<i64>))
            .col_expr(databases::Column::NextSealedUrl, Expr::value(None::<String>))
            .col_expr(databases::Column::NextAddressNumber, Expr::value(None::<i64>))
            .filter(databases::Column::TenantId.eq(work.tenant_id()))
            .exec(change.db())
            .await?;
        Ok(())
    }
}
