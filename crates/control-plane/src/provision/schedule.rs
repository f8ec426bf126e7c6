//! Rotation by age: credentials that have become old are rotated by themselves, a few at each look, so that a fleet that was
//! made in one day is not rotated in one.

use std::time::Duration;

use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect};
use tenancy::Status;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Kind;
use super::queue::{Order, enqueue, is_busy};
use crate::plane::Plane;
use crate::registry::entities::{databases, tenants};

/// How long one look is from the next.
const LOOK: Duration = Duration::from_mins(1);
/// Rotations that one look begins at most, whatever has become due meanwhile.
const MOST: u64 = 200;

/// Begins rotations until told to stop.
pub(crate) async fn rotate_by_age(plane: Plane, age: Duration, stopping: CancellationToken) {
    let mut pause = LOOK;
    loop {
        match begin(&plane, age).await {
            Ok(0) => pause = LOOK,
            Ok(begun) => {
                pause = LOOK;
                tracing::info!(begun, "credentials have become old and are rotated");
                plane.wake.ring();
            }
            Err(error) => {
                tracing::warn!(%error, "could not look for credentials that have become old");
                pause = (pause * 2).min(LOOK * 10);
            }
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Begins the rotations of one look, the oldest credentials first; answers how many.
pub(super) async fn begin(plane: &Plane, age: Duration) -> Result<u64, DbErr> {
    let registry = &plane.registry;
    let all = databases::Entity::find().count(registry.db()).await?;
    // As many as become due between two looks when all are spread evenly, and one more to catch up.
    let looks = Ord::max(age.as_secs() / LOOK.as_secs(), 1);
    let share = Ord::min(all / looks + 1, MOST);
    let since = Expr::expr(databases::Column::RotatedAt.into_expr().if_null(databases::Column::CreatedAt.into_expr()));
    let due = databases::Entity::find()
        .filter(since.clone().lte(registry.now() - age))
        .order_by_asc(since)
        .order_by_asc(databases::Column::Name)
        // Some of them may be at work, or unable to be.
        .limit(share * 4)
        .all(registry.db())
        .await?;
    let mut begun = 0;
    for row in due {
        if begun == share {
            break;
        }
        let change = registry.change().await?;
        let in_use = [Status::Active.as_str(), Status::Suspended.as_str()];
        let tenant = tenants::Entity::find_by_id(row.tenant_id)
            .filter(tenants::Column::Status.is_in(in_use))
            .lock(sea_orm::sea_query::LockType::NoKeyUpdate)
            .one(change.db())
            .await?;
        if tenant.is_none() || is_busy(&change, row.tenant_id, Kind::Rotate).await? {
            continue;
        }
        let order = Order {
            kind: Kind::Rotate,
            tenant: row.tenant_id,
            run_after: change.now(),
            is_forced: false,
            requested_by: "schedule".to_owned(),
        };
        enqueue(&change, order).await?;
        change.commit().await?;
        begun += 1;
    }
    Ok(begun)
}
