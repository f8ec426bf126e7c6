//! Claim: gives the tenant a database that is ready, or else a name and a password for one. Both are written down before
//! anything is made with them.

use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter};

use super::{Step, StepError};
use crate::engine::{DatabaseName, Slot, new_password};
use crate::provision::stock;
use crate::provision::work::{Work, password_in, url_subject};
use crate::registry::change::Change;
use crate::registry::entities::{databases, tenants};

/// The number of a new database's URL.
const FIRST: u64 = 1;

pub(super) struct Claim;

#[async_trait]
impl Step for Claim {
    fn name(&self) -> &'static str {
        "claim"
    }

    async fn joins(&self, _: &Work, _: &Change) -> Result<bool, StepError> {
        Ok(true)
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        let tenant = work.tenant_in(change.db()).await?;
        let server = tenant.server_id.ok_or_else(|| StepError::refused("the tenant is on no server"))?;
        let server = work.address_of(change, server).await?;
        let engine = work.plane.engine(&server)?;
        let ready = stock::take(&work.plane, change, server.id).await?;
        let is_warm = ready.is_some();
        let (name, url) = if let Some(ready) = ready {
            tenants::Entity::update_many()
                .col_expr(tenants::Column::SchemaVersion, Expr::value(ready.schema_version))
                .filter(tenants::Column::Id.eq(tenant.id))
                .exec(change.db())
                .await?;
            work.note_took_ready();
            // Its server may have moved since it was made ready.
            let url = engine.url(&ready.name, Slot::A, &password_in(&ready.url)?);
            (ready.name, url)
        } else {
            let mut rng = rand::rng();
            let name = DatabaseName::generate(work.plane.registry.mark(), &mut rng);
            let url = engine.url(&name, Slot::A, &new_password(&mut rng));
            (name, url)
        };
        let sealed = work.plane.tenants_ring.seal(url_subject(tenant.id, FIRST), &url, &mut rand::rng());
        let row = databases::ActiveModel {
            name: Set(name.as_str().to_owned()),
            server_id: Set(server.id),
            tenant_id: Set(tenant.id),
            slot: Set(Slot::A.as_str().to_owned()),
            generation: Set(FIRST.cast_signed()),
            sealed_url: Set(sealed.as_stored().to_owned()),
            created_at: Set(work.plane.registry.now()),
            next_slot: Set(None),
            next_generation: Set(None),
            next_sealed_url: Set(None),
            rotated_at: Set(None),
            is_warm: Set(is_warm),
            address_number: Set(server.address_number),
            next_address_number: Set(None),
        };
        databases::Entity::insert(row).exec_without_returning(change.db()).await?;
        Ok(())
    }

    async fn record_undo(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        databases::Entity::delete_many()
            .filter(databases::Column::TenantId.eq(work.tenant_id()))
            .exec(change.db())
            .await?;
        Ok(())
    }
}
