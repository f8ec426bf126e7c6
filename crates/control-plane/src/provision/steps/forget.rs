//! Forget: leaves of the tenant a tombstone with its record of erasure. Its keys, hosts, configuration, mail and sealed URL
//! are gone for good, and its slug is held back for a while.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter};
use tenancy::Status;
use uuid::Uuid;

use super::place::give_room_back;
use super::{Step, StepError};
use crate::provision::work::Work;
use crate::registry::change::Change;
use crate::registry::entities::{config, databases, domain_claims, domains, erasures, issuers, keys, outbox, tenants};
use crate::registry::slugs;

pub(super) struct Forget;

#[async_trait]
impl Step for Forget {
    fn name(&self) -> &'static str {
        "forget"
    }

    async fn joins(&self, _: &Work, _: &Change) -> Result<bool, StepError> {
        Ok(true)
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        let tenant = work.tenant_id();
        let db = change.db();
        let was_on = work.tenant_in(db).await?.server_id;
        // The tenant first: whoever adds something of it meanwhile waits for this, and finds it deleted.
        // One whose creation failed is `deleted` already, and was never visible.
        let ends = [Status::Deleting.as_str(), Status::Deleted.as_str()];
        let forgotten = tenants::Entity::update_many()
            .col_expr(tenants::Column::Status, Expr::value(Status::Deleted.as_str()))
            .col_expr(tenants::Column::StatusBefore, Expr::value(None::<String>))
            .col_expr(tenants::Column::DeleteAfter, Expr::value(None::<DateTime<Utc>>))
            .col_expr(tenants::Column::AdminEmail, Expr::value(None::<String>))
            .col_expr(tenants::Column::ServerId, Expr::value(None::<Uuid>))
            .col_expr(tenants::Column::SealedUrl, Expr::value(None::<String>))
            .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
            .col_expr(tenants::Column::UpdatedAt, Expr::value(work.plane.registry.now()))
            .filter(tenants::Column::Id.eq(tenant))
            .filter(tenants::Column::Status.is_in(ends))
            .exec(db)
            .await?;
        if forgotten.rows_affected == 0 {
            return Err(StepError::refused("the tenant is not being deleted any more"));
        }
        if let Some(server) = was_on {
            give_room_back(db, server).await?;
        }
        keys::Entity::delete_many().filter(keys::Column::TenantId.eq(tenant)).exec(db).await?;
        domains::Entity::delete_many().filter(domains::Column::TenantId.eq(tenant)).exec(db).await?;
        domain_claims::Entity::delete_many().filter(domain_claims::Column::TenantId.eq(tenant)).exec(db).await?;
        issuers::Entity::delete_many().filter(issuers::Column::TenantId.eq(tenant)).exec(db).await?;
        config::Entity::delete_many().filter(config::Column::TenantId.eq(tenant)).exec(db).await?;
        databases::Entity::delete_many().filter(databases::Column::TenantId.eq(tenant)).exec(db).await?;
        // Their recipient is somebody's address.
        outbox::Entity::delete_many().filter(outbox::Column::TenantId.eq(tenant)).exec(db).await?;
        let now = work.plane.registry.now();
        erasures::Entity::update_many()
            .col_expr(erasures::Column::ErasedAt, Expr::value(now))
            .filter(erasures::Column::TenantId.eq(tenant))
            .exec(db)
            .await?;
        let row = work.tenant_in(db).await?;
        slugs::hold(change, &row, work.plane.hold_slugs).await?;
        change.touch(tenant);
        Ok(())
    }
}
