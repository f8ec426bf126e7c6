//! Move URLs: has the URL of every database on a server name the address that the server has now. Login roles and passwords
//! stay as they are.
//!
//! Which address a URL names is written in its row, so that whoever takes the work over finds what is left. A URL is rewritten
//! under its row's lock, together with the next one if the credentials are being rotated: a rotation that ends meanwhile brings
//! no old address back, and loses no new password.

use std::time::Duration;

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, LockBehavior, LockType, SimpleExpr};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, ExprTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect,
};
use tenancy::seal::Sealed;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{Step, StepError};
use crate::engine::{Engine, Slot};
use crate::plane::Plane;
use crate::provision::work::{Work, password_in, url_subject};
use crate::registry::change::Change;
use crate::registry::each::each;
use crate::registry::entities::{databases, operations, servers, tenants};

/// Databases of one commit: the first ones are few, so that data planes hear of them at once.
const AT_ONCE: (u64, u64) = (25, 200);
/// After this no other look begins in one attempt.
const BEGINNING: Duration = Duration::from_secs(30);
/// How long one look is from the next when others have the rows that are left.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct MoveUrls;

/// What came of one pass over all that was left.
#[derive(Default)]
struct Pass {
    moved: usize,
    /// Tenants whose URLs do not open, or are damaged.
    unopened: Vec<Uuid>,
}

/// A database's URLs anew.
struct Anew {
    tenant: Uuid,
    generation: i64,
    sealed: String,
    /// Of the role that is made ready, if one is.
    next: Option<(i64, String)>,
}

#[async_trait]
impl Step for MoveUrls {
    fn name(&self) -> &'static str {
        "move_urls"
    }

    async fn run(&self, work: &Work) -> Result<(), StepError> {
        let late = Instant::now() + BEGINNING;
        loop {
            let pass = pass(work).await?;
            let server = work.server_row(work.plane.registry.db(), work.server_id()?).await?;
            let left = count_left(work.plane.registry.db(), &server).await?;
            if left == 0 {
                return Ok(());
            }
            if pass.moved == 0 && left <= pass.unopened.len() as u64 {
                let first = pass.unopened.first().map(ToString::to_string).unwrap_or_default();
                return Err(StepError::refused(format!(
                    "{left} tenants' URLs do not open ({first} among them); all others name the server's address now: rotate \
                     the credentials of those that are left"
                )));
            }
            if Instant::now() >= late {
                return Err(StepError::Waiting { text: format!("{left} tenants are being changed by others") });
            }
            sleep(PAUSE).await;
        }
    }

    async fn record(&self, work: &Work, change: &mut Change) -> Result<(), StepError> {
        // Nobody gives the server another address between this look and the end of the operation.
        let server = work.address_of(change, work.server_id()?).await?;
        let left = count_left(change.db(), &server).await?;
        if left > 0 {
            return Err(StepError::Waiting { text: format!("{left} tenants are left") });
        }
        let count =
            databases::Entity::find().filter(databases::Column::ServerId.eq(server.id)).count(change.db()).await?;
        operations::Entity::update_many()
            .col_expr(
                operations::Column::Note,
                Expr::value(format!("the URLs of {count} tenants name the server's address")),
            )
            .filter(operations::Column::Id.eq(work.lease.operation().id))
            .exec(change.db())
            .await?;
        Ok(())
    }
}

/// Databases on a server whose URL names another address than it has now, or whose next URL does.
fn is_left(server: &servers::Model) -> Condition {
    let next: SimpleExpr = Expr::expr(databases::Column::NextAddressNumber.into_expr().if_null(0_i64));
    let next_is_left = databases::Column::NextSealedUrl.is_not_null().and(next.lt(server.address_number));
    let is_left = databases::Column::AddressNumber.lt(server.address_number).or(next_is_left);
    Condition::all().add(databases::Column::ServerId.eq(server.id)).add(is_left)
}

/// How many databases' URLs name an address that their server had before.
pub(crate) async fn count_left(db: &impl ConnectionTrait, server: &servers::Model) -> Result<u64, DbErr> {
    databases::Entity::find().filter(is_left(server)).count(db).await
}

/// Goes once over all that is left, but for what others are changing.
async fn pass(work: &Work) -> Result<Pass, StepError> {
    let (mut pass, mut after, mut at_once) = (Pass::default(), Uuid::nil(), AT_ONCE.0);
    while let Some(last) = batch(work, after, at_once, &mut pass).await? {
        after = last;
        at_once = Ord::min(at_once * 2, AT_ONCE.1);
        tracing::debug!(moved = pass.moved, "tenants' URLs follow their server");
    }
    Ok(pass)
}

/// Moves the next few, and commits; answers the last that it looked at.
async fn batch(work: &Work, after: Uuid, at_once: u64, pass: &mut Pass) -> Result<Option<Uuid>, StepError> {
    let mut change = work.change().await?;
    let server = work.address_of(&change, work.server_id()?).await?;
    let rows = databases::Entity::find()
        .filter(is_left(&server))
        .filter(databases::Column::TenantId.gt(after))
        .order_by_asc(databases::Column::TenantId)
        .limit(at_once)
        // What another changes at this moment is looked at again: two that wait for each other's rows wait for ever.
        .lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::SkipLocked)
        .all(change.db())
        .await?;
    let Some(last) = rows.last().map(|row| row.tenant_id) else { return Ok(None) };
    let locked = tenants::Entity::find()
        .filter(tenants::Column::Id.is_in(rows.iter().map(|row| row.tenant_id)))
        .order_by_asc(tenants::Column::Id)
        .lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::SkipLocked)
        .all(change.db())
        .await?;
    let engine = work.plane.engine(&server)?;
    let mut moved = Vec::new();
    for row in rows.iter().filter(|row| locked.iter().any(|tenant| tenant.id == row.tenant_id)) {
        match anew(&work.plane, engine.as_ref(), row) {
            Ok(row) => moved.push(row),
            Err(error) => {
                tracing::warn!(tenant = %row.tenant_id, ?error, "a tenant's URL cannot follow its server");
                pass.unopened.push(row.tenant_id);
            }
        }
    }
    if !moved.is_empty() {
        write(&mut change, &server, &moved, &locked).await?;
        change.commit().await?;
        pass.moved += moved.len();
    }
    Ok(Some(last))
}

/// A database's URLs, as provisioning would make them now, with the passwords that they have.
fn anew(plane: &Plane, engine: &dyn Engine, row: &databases::Model) -> Result<Anew, StepError> {
    let url = |slot: &str, generation: i64, sealed: &str, next_generation: i64| {
        let subject = |generation: i64| url_subject(row.tenant_id, generation.unsigned_abs());
        let opened = plane.tenants_ring.open(subject(generation), &Sealed::from_stored(sealed));
        let opened = opened.map_err(|error| StepError::refused(format!("the URL does not open: {error}")))?;
        let url = engine.url(&row.name.parse()?, slot.parse::<Slot>()?, &password_in(&opened)?);
        let sealed = plane.tenants_ring.seal(subject(next_generation), &url, &mut rand::rng());
        Ok::<_, StepError>(sealed.as_stored().to_owned())
    };
    // Past the one that is made ready: no two URLs of a tenant have one generation.
    let generation = Ord::max(row.generation, row.next_generation.unwrap_or_default()) + 1;
    let next = match (&row.next_slot, row.next_generation, &row.next_sealed_url) {
        (Some(slot), Some(old), Some(sealed)) => Some((generation + 1, url(slot, old, sealed, generation + 1)?)),
        _ => None,
    };
    let sealed = url(&row.slot, row.generation, &row.sealed_url, generation)?;
    Ok(Anew { tenant: row.tenant_id, generation, sealed, next })
}

async fn write(
    change: &mut Change,
    server: &servers::Model,
    moved: &[Anew],
    tenants: &[tenants::Model],
) -> Result<(), DbErr> {
    let ids = |rows: &[&Anew]| rows.iter().map(|row| row.tenant).collect::<Vec<_>>();
    let all: Vec<&Anew> = moved.iter().collect();
    databases::Entity::update_many()
        .col_expr(
            databases::Column::Generation,
            each(databases::Column::TenantId, all.iter().map(|row| (row.tenant, row.generation))),
        )
        .col_expr(
            databases::Column::SealedUrl,
            each(databases::Column::TenantId, all.iter().map(|row| (row.tenant, row.sealed.as_str()))),
        )
        .col_expr(databases::Column::AddressNumber, Expr::value(server.address_number))
        .filter(databases::Column::TenantId.is_in(ids(&all)))
        .exec(change.db())
        .await?;
    let next: Vec<(Uuid, i64, &str)> = moved
        .iter()
        .filter_map(|row| row.next.as_ref().map(|(generation, sealed)| (row.tenant, *generation, sealed.as_str())))
        .collect();
    if !next.is_empty() {
        databases::Entity::update_many()
            .col_expr(
                databases::Column::NextGeneration,
                each(databases::Column::TenantId, next.iter().map(|(tenant, generation, _)| (*tenant, *generation))),
            )
            .col_expr(
                databases::Column::NextSealedUrl,
                each(databases::Column::TenantId, next.iter().map(|(tenant, _, sealed)| (*tenant, *sealed))),
            )
            .col_expr(databases::Column::NextAddressNumber, Expr::value(server.address_number))
            .filter(databases::Column::TenantId.is_in(next.iter().map(|(tenant, ..)| *tenant)))
            .exec(change.db())
            .await?;
    }
    // A tenant that is being created has no URL of its own yet: its activation takes that of its database.
    let has_url = |row: &&Anew| tenants.iter().any(|tenant| tenant.id == row.tenant && tenant.sealed_url.is_some());
    let seen: Vec<&Anew> = moved.iter().filter(has_url).collect();
    if seen.is_empty() {
        return Ok(());
    }
    tenants::Entity::update_many()
        .col_expr(
            tenants::Column::Generation,
            each(tenants::Column::Id, seen.iter().map(|row| (row.tenant, row.generation))),
        )
        .col_expr(
            tenants::Column::SealedUrl,
            each(tenants::Column::Id, seen.iter().map(|row| (row.tenant, row.sealed.as_str()))),
        )
        .col_expr(tenants::Column::Version, Expr::col(tenants::Column::Version).add(1))
        .col_expr(tenants::Column::UpdatedAt, Expr::value(change.now()))
        .filter(tenants::Column::Id.is_in(ids(&seen)))
        .exec(change.db())
        .await?;
    for row in seen {
        change.touch(row.tenant);
    }
    Ok(())
}
