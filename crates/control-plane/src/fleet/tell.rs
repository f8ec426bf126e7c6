//! A database is taken back only when data planes have let go of the newer version: they trust that it has what its route
//! says.

use std::time::Duration;

use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, QuerySelect};
use tenancy::route::Revision;
use tokio::time::{Instant, sleep};

use super::TargetState;
use crate::plane::Plane;
use crate::registry::entities::{rollout_targets, tenants};

/// How long one attempt waits for them. They mostly follow at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Why it was not to be begun.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untold {
    #[error("the registry failed: {0}")]
    Registry(#[from] DbErr),
    #[error("the target is another control plane's by now")]
    Lost,
    #[error(
        "{0} data planes have not let go of the newer version yet: GET /v1/nodes shows which are behind; DELETE \
         /v1/nodes/{{id}} forgets one that is gone for good"
    )]
    Behind(usize),
}

/// Tells data planes that the tenant's database has this version and no later one, and waits until each serves nothing else.
pub(super) async fn tell(plane: &Plane, target: &rollout_targets::Model, version: i32) -> Result<(), Untold> {
    let mut change = plane.registry.change().await?;
    let ours = rollout_targets::Entity::find_by_id((target.rollout_id, target.tenant_id))
        .filter(rollout_targets::Column::Fence.eq(target.fence))
        .filter(rollout_targets::Column::LeaseHolder.eq(plane.id))
        .filter(rollout_targets::Column::State.eq(TargetState::Running.as_str()))
        .lock(LockType::NoKeyUpdate)
        .one(change.db())
        .await?;
    if ours.is_none() {
        return Err(Untold::Lost);
    }
    let lowered = tenants::Entity::update_many()
        .col_expr(tenants::Column::SchemaVersion, Expr::value(version))
        .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
        .col_expr(tenants::Column::UpdatedAt, Expr::value(change.now()))
        .filter(tenants::Column::Id.eq(target.tenant_id))
        .filter(tenants::Column::SchemaVersion.gt(version))
        .exec(change.db())
        .await?;
    if lowered.rows_affected > 0 {
        change.touch(target.tenant_id);
    }
    change.commit().await?;
    let registry = &plane.registry;
    let revision: Option<i64> = tenants::Entity::find_by_id(target.tenant_id)
        .select_only()
        .column(tenants::Column::Revision)
        .into_tuple()
        .one(registry.db())
        .await?;
    let told = Revision(revision.unwrap_or_default().unsigned_abs());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let behind = registry.nodes_behind(told, registry.now() - plane.stale_after).await?;
        if behind.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Untold::Behind(behind.len()));
        }
        sleep(PAUSE).await;
    }
}
