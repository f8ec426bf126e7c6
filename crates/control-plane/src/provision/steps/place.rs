//! Place: chooses the server that the tenant's database will be on. A region is never left, a capacity never exceeded.

use std::cmp::Ordering;
use std::collections::HashMap;

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter, QuerySelect};
use uuid::Uuid;

use super::{Step, StepError};
use crate::provision::work::Work;
use crate::registry::change::Change;
use crate::registry::entities::{servers, tenants};

const OPEN: &str = "open";

pub(super) struct Place;

#[async_trait]
impl Step for Place {
    fn name(&self) -> &'static str {
        "place"
    }

    async fn joins(&self, _: &Work, _: &Change) -> Result<bool, StepError> {
        Ok(true)
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        let tenant = work.tenant_in(change.db()).await?;
        let Some(server) = emptiest(change.db(), tenant.region.as_deref()).await? else {
            return Err(StepError::refused(no_room(tenant.region.as_deref())));
        };
        if !has_room(change.db(), server).await? {
            // Not the next in this change: two that lock one after the other may wait for each other's.
            return Err(StepError::unavailable("the server was filled at the same moment"));
        }
        put(change, tenant.id, Some(server), work).await
    }

    async fn record_undo(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        put(change, work.tenant_id(), None, work).await
    }
}

/// What to do when no server takes a database.
pub(crate) fn no_room(region: Option<&str>) -> String {
    match region {
        Some(region) => format!(
            "no open server in region {region:?} has room: add one there (POST /v1/servers), raise a capacity or open a \
             draining one, then retry"
        ),
        None => {
            "no open server has room: add one (POST /v1/servers), raise a capacity or open a draining one, then retry"
                .to_owned()
        }
    }
}

/// The server that is open, in the region if one is demanded, and has room: the one with the least share of its capacity
/// taken. A guess: others place at the same moment.
pub(crate) async fn emptiest(db: &impl ConnectionTrait, region: Option<&str>) -> Result<Option<Uuid>, DbErr> {
    let mut open = servers::Entity::find().filter(servers::Column::State.eq(OPEN));
    if let Some(region) = region {
        open = open.filter(servers::Column::Region.eq(region));
    }
    let mut open = open.all(db).await?;
    let taken: HashMap<Uuid, i64> = tenants::Entity::find()
        .select_only()
        .column(tenants::Column::ServerId)
        .column_as(tenants::Column::Id.count(), "taken")
        .filter(tenants::Column::ServerId.is_in(open.iter().map(|server| server.id)))
        .group_by(tenants::Column::ServerId)
        .into_tuple()
        .all(db)
        .await?
        .into_iter()
        .collect();
    let taken = |server: &servers::Model| taken.get(&server.id).copied().unwrap_or(0);
    open.retain(|server| taken(server) < i64::from(server.capacity));
    let least = open
        .into_iter()
        .min_by(|one, other| share(taken(one), one, taken(other), other).then_with(|| one.name.cmp(&other.name)));
    Ok(least.map(|server| server.id))
}

/// Compares two fractions without dividing.
fn share(taken: i64, of: &servers::Model, other_taken: i64, other: &servers::Model) -> Ordering {
    let (one, two) =
        (i128::from(taken) * i128::from(other.capacity), i128::from(other_taken) * i128::from(of.capacity));
    one.cmp(&two)
}

/// Whether the server still takes a database. Its row stays locked until the change ends, so that nobody else counts in
/// between. A tenant is on a server from its placing until its database is dropped.
async fn has_room(db: &impl ConnectionTrait, server: Uuid) -> Result<bool, DbErr> {
    let open = servers::Entity::find_by_id(server)
        .filter(servers::Column::State.eq(OPEN))
        .lock(LockType::NoKeyUpdate)
        .one(db)
        .await?;
    let Some(open) = open else { return Ok(false) };
    let taken = tenants::Entity::find().filter(tenants::Column::ServerId.eq(server)).count(db).await?;
    Ok(taken < u64::from(open.capacity.unsigned_abs()))
}

async fn put(change: &Change, tenant: Uuid, server: Option<Uuid>, work: &Work) -> Result<(), StepError> {
    tenants::Entity::update_many()
        .col_expr(tenants::Column::ServerId, Expr::value(server))
        .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
        .col_expr(tenants::Column::UpdatedAt, Expr::value(work.plane.registry.now()))
        .filter(tenants::Column::Id.eq(tenant))
        .exec(change.db())
        .await?;
    Ok(())
}
