//! Claim: gives the tenant a database's name and a password. Both are written down before anything is made with them.

use async_trait::async_trait;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter};

use super::{Step, StepError};
use crate::engine::{DatabaseName, Slot, new_password};
use crate::provision::work::{Work, url_subject};
use crate::registry::change::Change;
use crate::registry::entities::databases;

/// The number of a new database's URL.
const FIRST: u64 = 1;

pub(super) struct Claim;

#[async_trait]
impl Step for Claim {
    fn name(&self) -> &'static str {
        "claim"
    }

    async fn run(&self, work: &Work) -> Result<Change, StepError> {
        let tenant = work.tenant_row().await?;
        let server = tenant.server_id.ok_or_else(|| StepError::refused("the tenant is on no server"))?;
        let (_, engine) = work.server(server).await?;
        let row = {
            let mut rng = rand::rng();
            let name = DatabaseName::generate(&mut rng);
            let url = engine.url(&name, Slot::A, &new_password(&mut rng));
            let sealed = work.plane.tenants_ring.seal(url_subject(tenant.id, FIRST), &url, &mut rng);
            databases::ActiveModel {
                name: Set(name.as_str().to_owned()),
                server_id: Set(server),
                tenant_id: Set(tenant.id),
                slot: Set(Slot::A.as_str().to_owned()),
                generation: Set(FIRST.cast_signed()),
                sealed_url: Set(sealed.as_stored().to_owned()),
                created_at: Set(work.plane.registry.now()),
                next_slot: Set(None),
                next_generation: Set(None),
                next_sealed_url: Set(None),
                rotated_at: Set(None),
            }
        };
        let change = work.change().await?;
        row.insert(change.db()).await?;
        Ok(change)
    }

    async fn undo(&self, work: &Work) -> Result<Change, StepError> {
        let change = work.change().await?;
        databases::Entity::delete_many()
            .filter(databases::Column::TenantId.eq(work.tenant_id()))
            .exec(change.db())
            .await?;
        Ok(change)
    }
}
