//! Activate: makes the tenant visible to data planes. It is the last step, and ends the operation in its own commit: there
//! is nothing to undo.
//!
//! Notify, which follows it in the walk, is a row in the outbox that goes with this commit: it is there if and only if the
//! tenant is active, and no mail server can delay or fail an activation.

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter, QuerySelect};
use tenancy::Status;

use super::migrate::{migrate_to, record};
use super::{Step, StepError};
use crate::mail::outbox;
use crate::provision::work::Work;
use crate::registry::change::Change;
use crate::registry::entities::{plans, tenants};

pub(super) struct Activate;

#[async_trait]
impl Step for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    async fn joins(&self, work: &Work, change: &Change) -> Result<bool, StepError> {
        let has = work.tenant_in(change.db()).await?.schema_version;
        Ok(has >= work.plane.registry.history_in(change.db()).await?.schema_version)
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        // The fleet may have gone on since the database was migrated, and no rollout knows of this tenant yet.
        let has = work.tenant_row().await?.schema_version;
        let fleet = work.plane.registry.history().await?.schema_version;
        if has >= fleet {
            return Ok(());
        }
        migrate_to(work, fleet).await
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        let database = work.locked_row(change).await?;
        // Plans are locked before tenants. A plan that is changed meanwhile is news for this tenant too, or changed before.
        let tenant = work.tenant_in(change.db()).await?;
        let plan = tenant.plan;
        plans::Entity::find_by_id(plan.as_str()).lock(LockType::Share).one(change.db()).await?;
        let migrated = work.take_schema_version();
        change.hold_fleet_at(migrated.unwrap_or(tenant.schema_version));
        if let Some(version) = migrated {
            record(change, work, version).await?;
        }
        let activated = tenants::Entity::update_many()
            .col_expr(tenants::Column::Status, Expr::value(Status::Active.as_str()))
            .col_expr(tenants::Column::ServerId, Expr::value(database.server_id))
            .col_expr(tenants::Column::SealedUrl, Expr::value(database.sealed_url))
            .col_expr(tenants::Column::Generation, Expr::value(database.generation))
            .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
            .col_expr(tenants::Column::UpdatedAt, Expr::value(work.plane.registry.now()))
            .filter(tenants::Column::Id.eq(work.tenant_id()))
            .filter(tenants::Column::Status.eq(Status::Provisioning.as_str()))
            .filter(tenants::Column::Plan.eq(plan.as_str()))
            .exec(change.db())
            .await?;
        if activated.rows_affected == 0 {
            let now = work.tenant_in(change.db()).await?;
            if now.plan != plan && now.status == Status::Provisioning.as_str() {
                return Err(StepError::unavailable("the tenant's plan was changed at the same moment"));
            }
            return Err(StepError::refused("the tenant is not being provisioned any more"));
        }
        if work.plane.mail.is_some() {
            outbox::welcome(change, work.tenant_id()).await?;
        }
        change.touch(work.tenant_id());
        Ok(())
    }
}
