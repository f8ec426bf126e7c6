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

    async fn run(&self, work: &Work) -> Result<Change, StepError> {
        let tenant = work.tenant_row().await?;
        for server in emptiest_first(work.plane.registry.db(), tenant.region.as_deref()).await? {
            let change = work.change().await?;
            if has_room(change.db(), server).await? {
                put(&change, tenant.id, Some(server), work).await?;
                return Ok(change);
            }
            // Filled since. Its lock goes with the change: no two of us wait for each other's.
        }
        Err(StepError::refused(match tenant.region {
            Some(region) => format!(
                "no open server in region {region:?} has room: add one there (POST /v1/servers), raise a capacity or \
                 open a draining one, then retry"
            ),
            None => "no open server has room: add one (POST /v1/servers), raise a capacity or open a draining one, \
                     then retry"
                .to_owned(),
        }))
    }

    async fn undo(&self, work: &Work) -> Result<Change, StepError> {
        let change = work.change().await?;
        put(&change, work.tenant_id(), None, work).await?;
        Ok(change)
    }
}

/// Servers that are open, in the region if one is demanded, by the share of their capacity that is taken. A guess: others
/// place at the same moment.
async fn emptiest_first(db: &impl ConnectionTrait, region: Option<&str>) -> Result<Vec<Uuid>, DbErr> {
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
    open.sort_by(|one, other| share(taken(one), one, taken(other), other).then_with(|| one.name.cmp(&other.name)));
    Ok(open.into_iter().map(|server| server.id).collect())
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

async fn put(change: &Change, tenant: Uuid, server: Option<Uuid>, work: &Work) -> Result<(), DbErr> {
    tenants::Entity::update_many()
        .col_expr(tenants::Column::ServerId, Expr::value(server))
        .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
        .col_expr(tenants::Column::UpdatedAt, Expr::value(work.plane.registry.now()))
        .filter(tenants::Column::Id.eq(tenant))
        .exec(change.db())
        .await?;
    Ok(())
}
