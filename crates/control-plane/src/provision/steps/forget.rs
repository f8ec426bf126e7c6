//! Forget: leaves of the tenant a tombstone alone. Its keys, hosts, configuration and sealed URL are gone for good.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter};
use tenancy::Status;
use uuid::Uuid;

use super::{Step, StepError};
use crate::provision::work::Work;
use crate::registry::change::Change;
use crate::registry::entities::{config, databases, domains, keys, tenants};

pub(super) struct Forget;

#[async_trait]
impl Step for Forget {
    fn name(&self) -> &'static str {
        "forget"
    }

    async fn run(&self, work: &Work) -> Result<Change, StepError> {
        let tenant = work.tenant_id();
        let mut change = work.change().await?;
        let db = change.db();
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
        keys::Entity::delete_many().filter(keys::Column::TenantId.eq(tenant)).exec(db).await?;
        domains::Entity::delete_many().filter(domains::Column::TenantId.eq(tenant)).exec(db).await?;
        config::Entity::delete_many().filter(config::Column::TenantId.eq(tenant)).exec(db).await?;
        databases::Entity::delete_many().filter(databases::Column::TenantId.eq(tenant)).exec(db).await?;
        change.touch(tenant);
        Ok(change)
    }
}
