//! Operations that are held: they were ordered in another epoch than the registry's present one.
//!
//! A registry that was restored from a backup says of work that it is due or half done which has long ended, or was called
//! off. Nobody goes on with it until an operator says so.

use http::StatusCode;
use sea_orm::sea_query::{Expr, ExprTrait as _, LockType, SimpleExpr};
use sea_orm::{ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};
use service::Problem;
use uuid::Uuid;

use super::queue::unfinished_on;
use super::{Kind, On, State};
use crate::registry::change::Change;
use crate::registry::entities::{operations, tenants};
use crate::registry::{present_epoch, whole_epoch};

/// Whether nobody goes on with an operation by itself.
pub(crate) fn is_held(operation: &operations::Model, epoch: Uuid) -> bool {
    !State::has_ended(&operation.state) && operation.epoch != Some(epoch)
}

/// Whether an operation was ordered in the registry's present epoch.
fn is_of_present_epoch() -> SimpleExpr {
    operations::Column::Epoch.in_subquery(present_epoch())
}

/// Whether an operation may be worked on by itself: it was ordered in the present epoch, and deletes no tenant while part of
/// the history is known to be lost. The deletion may have been called off there.
pub(super) fn may_go_on() -> Condition {
    let deletes_nothing = operations::Column::Kind.ne(Kind::Delete.as_str());
    let is_whole = operations::Column::Epoch.in_subquery(whole_epoch());
    Condition::all().add(is_of_present_epoch()).add(deletes_nothing.or(is_whole))
}

/// Those that are held.
pub(crate) fn holds() -> Condition {
    // An older version wrote none.
    let other = operations::Column::Epoch.is_null().or(is_of_present_epoch().not());
    Condition::all().add(operations::Column::State.is_not_in(State::ENDS.map(State::as_str))).add(other)
}

/// The held operation of a tenant that was begun, if there is one: nothing else is worked on until it has ended.
pub(crate) async fn begun(
    db: &impl ConnectionTrait,
    tenant: Uuid,
    epoch: Uuid,
) -> Result<Option<operations::Model>, DbErr> {
    begun_on(db, On::Tenant(tenant), epoch).await
}

/// As [`begun`], of a tenant or a server.
pub(crate) async fn begun_on(
    db: &impl ConnectionTrait,
    on: On,
    epoch: Uuid,
) -> Result<Option<operations::Model>, DbErr> {
    let all = unfinished_on(db, on).await?;
    Ok(all.into_iter().find(|it| is_held(it, epoch) && it.state != State::Pending.as_str()))
}

/// What to do first.
pub(crate) fn in_the_way(held: &operations::Model) -> Problem {
    let detail = format!(
        "The operation {} ({}) was ordered before the registry's history got another identity, and is held. POST \
         /v1/operations/{}/retry goes on with it; nothing else is begun before it has ended.",
        held.id, held.kind, held.id
    );
    Problem::new(StatusCode::CONFLICT, "operation-held", detail)
}

/// Has a held operation go on where it was. Ring the plane's [`super::Wake`] after the commit.
pub(crate) async fn go_on(change: &Change, held: operations::Model, epoch: Uuid) -> Result<operations::Model, Problem> {
    if let Some(tenant) = held.tenant_id {
        // Two that are told to go on at the same moment.
        tenants::Entity::find_by_id(tenant).lock(LockType::NoKeyUpdate).one(change.db()).await?;
        if let Some(first) = begun(change.db(), tenant, epoch).await?.filter(|first| first.id != held.id) {
            return Err(in_the_way(&first));
        }
    }
    let released = operations::Entity::update_many()
        .col_expr(operations::Column::Epoch, Expr::value(epoch))
        .col_expr(operations::Column::RunAfter, Expr::value(change.now()))
        .filter(operations::Column::Id.eq(held.id))
        .filter(operations::Column::State.eq(held.state))
        .filter(holds())
        .exec_with_returning(change.db())
        .await?;
    released.into_iter().next().ok_or_else(|| {
        let detail = "Another request changed the operation at the same time. Read it again, and repeat the request.";
        Problem::new(StatusCode::CONFLICT, "concurrent-change", detail)
    })
}
