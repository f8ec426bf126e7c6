//! Slugs that are held back. A tenant that is renamed or deleted leaves its slug, but links, host names and tokens still name
//! it: for a while they lead to no other tenant.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, QueryFilter};
use tenancy::Status;
use uuid::Uuid;

use super::change::Change;
use super::entities::{held_slugs, tenants};

/// The condition for the tenant that has a slug, which is not deleted. The status is written into the statement: a partial index is
/// not used for a status that is a parameter.
pub(crate) fn is_of(slug: &str) -> Expr {
    let deleted = Expr::Constant(Status::Deleted.as_str().into());
    tenants::Column::Slug.eq(slug).and(tenants::Column::Status.into_expr().ne(deleted))
}

/// Holds back the slug that a tenant leaves. `left` is the tenant as it was.
pub(crate) async fn hold(change: &Change, left: &tenants::Model, period: Duration) -> Result<(), DbErr> {
    let now = change.now();
    // The slug of a tenant that no data plane ever saw led nowhere: it is free at once.
    if left.revision > 0 {
        let held =
            held_slugs::ActiveModel { slug: Set(left.slug.clone()), tenant_id: Set(left.id), until: Set(now + period) };
        let longer = OnConflict::column(held_slugs::Column::Slug)
            .update_columns([held_slugs::Column::TenantId, held_slugs::Column::Until])
            .to_owned();
        held_slugs::Entity::insert(held).on_conflict(longer).exec_without_returning(change.db()).await?;
    }
    // What is over need not be kept.
    held_slugs::Entity::delete_many().filter(held_slugs::Column::Until.lte(now)).exec(change.db()).await?;
    Ok(())
}

/// Until when a slug is held back from a tenant, or from a new one. The tenant that left it may take it back.
///
/// Ask after the slug is written to the tenant's row: that write waits for the change that is about to hold the slug back.
pub(crate) async fn held_until(
    change: &Change,
    slug: &str,
    taker: Option<Uuid>,
) -> Result<Option<DateTime<Utc>>, DbErr> {
    let held = held_slugs::Entity::find_by_id(slug).filter(held_slugs::Column::Until.gt(change.now()));
    let held = held.one(change.db()).await?;
    Ok(held.filter(|held| taker != Some(held.tenant_id)).map(|held| held.until))
}

/// A tenant has its slug again: nothing holds it back any more.
pub(crate) async fn take_back(change: &Change, slug: &str, taker: Uuid) -> Result<(), DbErr> {
    let held = held_slugs::Entity::delete_many().filter(held_slugs::Column::Slug.eq(slug));
    held.filter(held_slugs::Column::TenantId.eq(taker)).exec(change.db()).await?;
    Ok(())
}
