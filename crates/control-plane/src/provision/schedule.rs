//! Rotation by age: credentials that have become old are rotated by themselves, a few at each look, so that a fleet that was
//! made in one day is not rotated in one.

use std::time::Duration;

use sea_orm::sea_query::{Expr, LockType, Query, SimpleExpr};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, Select,
};
use tenancy::Status;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::queue::{Order, enqueue};
use super::{Kind, On};
use crate::audit::Deed;
use crate::plane::Plane;
use crate::registry::entities::{databases, operations, tenants};

/// How long one look is from the next.
const LOOK: Duration = Duration::from_mins(1);
/// Rotations that one look begins at most, whatever has become due meanwhile.
const MOST: u64 = 200;

/// How long one whose rotation failed is left alone.
const LEFT_FOR: Duration = Duration::from_hours(6);
/// Whose credentials are used, or may be again.
const IN_USE: [Status; 2] = [Status::Active, Status::Suspended];

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
    let mut begun = 0;
    for row in due(plane, age).await? {
        begun += u64::from(order(plane, age, row.tenant_id).await?);
    }
    Ok(begun)
}

/// When a database's credentials were made.
fn since() -> SimpleExpr {
    Expr::expr(databases::Column::RotatedAt.into_expr().if_null(databases::Column::CreatedAt.into_expr()))
}

/// Databases whose credentials are too old, and that nothing keeps from being rotated.
fn too_old(plane: &Plane, age: Duration) -> Select<databases::Entity> {
    let now = plane.registry.now();
    let in_use = Query::select()
        .column(tenants::Column::Id)
        .from(tenants::Entity)
        .and_where(tenants::Column::Status.is_in(IN_USE.map(Status::as_str)))
        .to_owned();
    // Being rotated, or one whose rotation failed a while ago: the others are not to wait for it. A rotation that is held
    // counts too: it may have been begun, and what becomes of it an operator says.
    let tried = Query::select()
        .column(operations::Column::TenantId)
        .from(operations::Entity)
        .and_where(operations::Column::Kind.eq(Kind::Rotate.as_str()))
        .and_where(operations::Column::FinishedAt.is_null().or(operations::Column::FinishedAt.gt(now - LEFT_FOR)))
        .to_owned();
    databases::Entity::find()
        .filter(since().lte(now - age))
        .filter(databases::Column::TenantId.in_subquery(in_use))
        .filter(databases::Column::TenantId.not_in_subquery(tried))
}

/// Those of one look, as it seems without a lock.
pub(super) async fn due(plane: &Plane, age: Duration) -> Result<Vec<databases::Model>, DbErr> {
    let db = plane.registry.db();
    let all = databases::Entity::find().count(db).await?;
    // As many as become due between two looks when all are spread evenly, and one more to catch up.
    let looks = Ord::max(age.as_secs() / LOOK.as_secs(), 1);
    let share = Ord::min(all / looks + 1, MOST);
    too_old(plane, age).order_by_asc(since()).order_by_asc(databases::Column::Name).limit(share).all(db).await
}

/// Orders one rotation; answers whether it did. Another control plane may have looked at the same moment, and its rotation may
/// even have ended since: what is due is decided under the tenant's lock.
pub(super) async fn order(plane: &Plane, age: Duration, tenant: Uuid) -> Result<bool, DbErr> {
    let mut change = plane.registry.change().await?;
    tenants::Entity::find_by_id(tenant).lock(LockType::NoKeyUpdate).one(change.db()).await?;
    let is_due = too_old(plane, age).filter(databases::Column::TenantId.eq(tenant)).one(change.db()).await?;
    if is_due.is_none() {
        return Ok(false);
    }
    let order = Order {
        kind: Kind::Rotate,
        on: On::Tenant(tenant),
        run_after: change.now(),
        is_forced: false,
        requested_by: "schedule".to_owned(),
    };
    let ordered = enqueue(&change, order).await?;
    change.audit(Deed::on_tenant("tenant.rotation-ordered", tenant).of(ordered.id.to_string()).detail("by age"));
    change.commit().await?;
    Ok(true)
}
