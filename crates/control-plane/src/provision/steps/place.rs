//! Place: chooses the server that the tenant's database will be on. A region is never left, a capacity never exceeded.

use std::cmp::Ordering;
use std::collections::HashSet;

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, Func, LockType, Query, SelectStatement, SimpleExpr};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, QuerySelect};
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
        let silent = work.plane.breakers.all();
        let Some(server) = emptiest(change.db(), tenant.region.as_deref(), &silent).await? else {
            return Err(StepError::refused(no_room(tenant.region.as_deref())));
        };
        if !take_room(change.db(), server).await? {
            // Not the next in this change: two that lock one after the other may wait for each other's.
            return Err(StepError::unavailable("the server was filled at the same moment"));
        }
        put(change, tenant.id, Some(server), work).await
    }

    async fn record_undo(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        if let Some(server) = work.tenant_in(change.db()).await?.server_id {
            give_room_back(change.db(), server).await?;
        }
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
/// taken. One that failed to answer is taken when no other has room. A guess: others place at the same moment.
pub(crate) async fn emptiest(
    db: &impl ConnectionTrait,
    region: Option<&str>,
    silent: &HashSet<Uuid>,
) -> Result<Option<Uuid>, DbErr> {
    let mut open = servers::Entity::find().filter(servers::Column::State.eq(OPEN));
    if let Some(region) = region {
        open = open.filter(servers::Column::Region.eq(region));
    }
    let open = open.filter(has_room()).all(db).await?;
    let is_silent = |server: &servers::Model| silent.contains(&server.id);
    let least = open.into_iter().min_by(|one, other| {
        let by_voice = is_silent(one).cmp(&is_silent(other));
        by_voice.then_with(|| share(one, other)).then_with(|| one.name.cmp(&other.name))
    });
    Ok(least.map(|server| server.id))
}

/// Compares how full two servers are, without dividing.
fn share(one: &servers::Model, other: &servers::Model) -> Ordering {
    let taken = |of: &servers::Model, capacity: i32| i64::from(of.placed) * i64::from(capacity);
    taken(one, other.capacity).cmp(&taken(other, one.capacity))
}

fn has_room() -> SimpleExpr {
    Expr::col(servers::Column::Placed).lt(Expr::col(servers::Column::Capacity))
}

/// Takes a place on the server, if it still has one. A tenant has it from its placing until its database is dropped. The
/// places taken are counted on the server's row, since to count tenants takes longer the more there are.
async fn take_room(db: &impl ConnectionTrait, server: Uuid) -> Result<bool, DbErr> {
    let taken = servers::Entity::update_many()
        .col_expr(servers::Column::Placed, Expr::col(servers::Column::Placed).add(1))
        .filter(servers::Column::Id.eq(server))
        .filter(servers::Column::State.eq(OPEN))
        .filter(has_room())
        .exec(db)
        .await?;
    Ok(taken.rows_affected > 0)
}

/// Gives a tenant's place on the server to others.
pub(super) async fn give_room_back(db: &impl ConnectionTrait, server: Uuid) -> Result<(), DbErr> {
    servers::Entity::update_many()
        .col_expr(servers::Column::Placed, Expr::col(servers::Column::Placed).sub(1))
        .filter(servers::Column::Id.eq(server))
        .exec(db)
        .await?;
    Ok(())
}

/// How many places on a server are taken by its own count, and how many by its tenants', as of one moment.
pub(crate) async fn places(db: &impl ConnectionTrait, server: Uuid) -> Result<Option<(i32, i64)>, DbErr> {
    let row = servers::Entity::find_by_id(server)
        .select_only()
        .column(servers::Column::Placed)
        .expr_as(SimpleExpr::SubQuery(None, Box::new(tenants_on(server).into())), "taken");
    row.into_tuple().one(db).await
}

/// Counts the places that are taken on a server anew.
pub(crate) async fn recount_places(change: &Change, server: Uuid) -> Result<(), DbErr> {
    // Whoever takes or gives back a place changes this row: what they did is seen, or waits.
    servers::Entity::find_by_id(server).lock(LockType::NoKeyUpdate).one(change.db()).await?;
    servers::Entity::update_many()
        .col_expr(servers::Column::Placed, SimpleExpr::SubQuery(None, Box::new(tenants_on(server).into())))
        .filter(servers::Column::Id.eq(server))
        .exec(change.db())
        .await?;
    Ok(())
}

fn tenants_on(server: Uuid) -> SelectStatement {
    Query::select()
        .expr(Func::count(Expr::col((tenants::Entity, tenants::Column::Id))))
        .from(tenants::Entity)
        .and_where(tenants::Column::ServerId.eq(server))
        .to_owned()
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
