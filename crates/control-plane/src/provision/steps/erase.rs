//! Erase: what belonged to the tenant goes from the registry, its sealed URL first. A tombstone remains.

use async_trait::async_trait;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter};
use tenancy::Status;

use super::{Step, StepError, Work};
use crate::registry::change::{Change, tenant_in};
use crate::registry::entities::{config, databases, domains, keys};

pub(super) struct Erase;

#[async_trait]
impl Step for Erase {
    fn name(&self) -> &'static str {
        "erase"
    }

    async fn run(&self, work: &Work<'_>) -> Result<Option<Change>, StepError> {
        let id = work.operation.tenant_id;
        let mut change = work.plane.registry.change().await?;
        let db = change.db();
        databases::Entity::delete_many().filter(databases::Column::TenantId.eq(id)).exec(db).await?;
        keys::Entity::delete_many().filter(keys::Column::TenantId.eq(id)).exec(db).await?;
        domains::Entity::delete_many().filter(domains::Column::TenantId.eq(id)).exec(db).await?;
        config::Entity::delete_many().filter(config::Column::TenantId.eq(id)).exec(db).await?;
        let tenant = tenant_in(&change, id.into()).await?;
        let tenant = tenant.ok_or_else(|| StepError::refused("the tenant is not in the registry any more"))?;
        let counted = tenant.version + 1;
        let mut row = tenant.into_active_model();
        row.status = Set(Status::Deleted.as_str().to_owned());
        row.sealed_url = Set(None);
        row.admin_email = Set(None);
        row.server_id = Set(None);
        row.version = Set(counted);
        row.updated_at = Set(work.plane.registry.now());
        row.update(change.db()).await?;
        change.touch(id);
        Ok(Some(change))
    }
}
