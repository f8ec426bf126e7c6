//! Operations that ended long ago are pruned, a batch at a time. Each tenant, and each server, keeps its newest: it says how the tenant came to
//! be as it is, and a failed creation is started again by it. Records of erasure are rows of their own, and stay.

use std::sync::LazyLock;
use std::time::Duration;

use chrono::{DateTime, Utc};
use opentelemetry::metrics::Counter;
use sea_orm::sea_query::{Alias, Expr, ExprTrait as _, Query};
use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::plane::Plane;
use crate::registry::Registry;
use crate::registry::entities::{operation_steps, operations};

/// How long one look is from the next.
const LOOK: Duration = Duration::from_hours(1);
/// Operations that go in one change.
const BATCH: u64 = 500;

/// Prunes what ended longer ago than this, until told to stop. Any number of control planes may: what is gone is gone.
pub(crate) async fn prune(plane: Plane, keep: Duration, stopping: CancellationToken) {
    let mut pause = LOOK;
    loop {
        let before = plane.registry.now() - keep;
        let looked = stopping.run_until_cancelled(look(&plane.registry, before, BATCH)).await;
        match looked {
            Some(Ok(pruned)) => {
                pause = LOOK;
                if pruned > 0 {
                    tracing::info!(pruned, "operations that ended long ago were pruned");
                }
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "could not prune operations that ended long ago");
                pause = (pause * 2).min(LOOK * 10);
            }
            None => return,
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}

/// Prunes all that ended before this, so many in one change; answers how many.
pub(super) async fn look(registry: &Registry, before: DateTime<Utc>, batch: u64) -> Result<u64, DbErr> {
    static PRUNED: LazyLock<Counter<u64>> = LazyLock::new(|| {
        opentelemetry::global::meter("control-plane")
            .u64_counter("operations_pruned")
            .with_description("Operations that ended long ago and were pruned.")
            .build()
    });
    let newer = Alias::new("newer");
    let has_newer = Query::select()
        .expr(Expr::value(1))
        .from_as(operations::Entity, newer.clone())
        .cond_where(
            Condition::any()
                .add(operations::Column::TenantId.into_expr().equals((newer.clone(), operations::Column::TenantId)))
                .add(operations::Column::ServerId.into_expr().equals((newer.clone(), operations::Column::ServerId))),
        )
        // Ids are UUIDv7: their order is that of creation.
        .and_where(Expr::col((newer, operations::Column::Id)).gt(operations::Column::Id.into_expr()))
        .to_owned();
    let (mut last, mut pruned) = (Uuid::nil(), 0);
    loop {
        let ids: Vec<Uuid> = operations::Entity::find()
            .select_only()
            .column(operations::Column::Id)
            .filter(operations::Column::Id.gt(last))
            .filter(operations::Column::FinishedAt.lt(before))
            .filter(Expr::exists(has_newer.clone()))
            .order_by_asc(operations::Column::Id)
            .limit(batch)
            .into_tuple()
            .all(registry.db())
            .await?;
        let Some(next) = ids.last().copied() else { return Ok(pruned) };
        last = next;
        let change = registry.change().await?;
        let steps = operation_steps::Column::OperationId.is_in(ids.iter().copied());
        operation_steps::Entity::delete_many().filter(steps).exec(change.db()).await?;
        let gone =
            operations::Entity::delete_many().filter(operations::Column::Id.is_in(ids)).exec(change.db()).await?;
        change.commit().await?;
        pruned += gone.rows_affected;
        PRUNED.add(gone.rows_affected, &[]);
    }
}
