//! The outbox: rows of mail to be sent, who is sending each, and when it is tried again.
//!
//! A row is sent by whoever leased it last; two senders never hold one at the same moment. It is kept when it was sent, and
//! goes with its tenant's erasure.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, DbErr, EntityTrait, ExprTrait, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect,
};
use uuid::Uuid;

use crate::registry::Registry;
use crate::registry::change::Change;
use crate::registry::entities::{outbox, tenants};

const WELCOME: &str = "welcome";

/// How long a sender holds a row: more than twice as long as an attempt takes.
pub(super) const LEASE: Duration = Duration::from_secs(75);
/// The wait before the second attempt; each further one is twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(10);
/// The longest wait between two attempts.
const LONGEST: Duration = Duration::from_hours(1);
/// A mail that is younger, or was tried less often, is not given up.
const TRIED_FOR: TimeDelta = TimeDelta::days(3);
const TRIED_TIMES: i32 = 12;

/// When a mail is due that was given up. Its error stays in its row; an operator who sets an earlier `run_after` has it
/// tried again.
pub(super) const NEVER: DateTime<Utc> = match DateTime::from_timestamp(253_370_764_800, 0) {
    Some(never) => never,
    None => DateTime::<Utc>::MAX_UTC,
};

/// A row that nobody else sends for a while.
pub(super) struct Leased {
    pub(super) row: outbox::Model,
    holder: Uuid,
}

/// What became of a mail that was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    TriedAgain,
    GivenUp,
}

/// Writes the welcome of a tenant, if anybody is to be welcomed, in the change that activates it. That change happens once
/// for a tenant, and so does its welcome.
pub(crate) async fn welcome(change: &Change, tenant: Uuid) -> Result<(), DbErr> {
    let row = tenants::Entity::find_by_id(tenant).one(change.db()).await?;
    let Some(recipient) = row.and_then(|row| row.admin_email) else { return Ok(()) };
    let now = change.now();
    let mail = outbox::ActiveModel {
        id: Set(Uuid::now_v7()),
        tenant_id: Set(tenant),
        kind: Set(WELCOME.to_owned()),
        recipient: Set(recipient),
        attempts: Set(0),
        error: Set(None),
        run_after: Set(now),
        lease_holder: Set(None),
        lease_until: Set(None),
        created_at: Set(now),
        sent_at: Set(None),
    };
    mail.insert(change.db()).await.map(drop)
}

/// Takes up to so many mails that are due and nobody is sending, the longest due first.
pub(super) async fn take(registry: &Registry, now: DateTime<Utc>, at_most: usize) -> Result<Vec<Leased>, DbErr> {
    let due = outbox::Entity::find()
        .filter(is_due(now))
        // What a newer version brought is left to those who know it.
        .filter(outbox::Column::Kind.eq(WELCOME))
        .order_by_asc(outbox::Column::RunAfter)
        .order_by_asc(outbox::Column::Id)
        // Others may be faster with some.
        .limit(4 * at_most as u64)
        .all(registry.db())
        .await?;
    let mut taken = Vec::new();
    for seen in due {
        if taken.len() == at_most {
            break;
        }
        // A new one each time: it is the fencing number too.
        let holder = Uuid::new_v4();
        let row = outbox::Entity::update_many()
            .col_expr(outbox::Column::LeaseHolder, Expr::value(holder))
            .col_expr(outbox::Column::LeaseUntil, Expr::value(now + LEASE))
            .filter(outbox::Column::Id.eq(seen.id))
            .filter(is_due(now))
            .exec_with_returning(registry.db())
            .await?
            .pop();
        taken.extend(row.map(|row| Leased { row, holder }));
    }
    Ok(taken)
}

fn is_due(now: DateTime<Utc>) -> Condition {
    let until = outbox::Column::LeaseUntil;
    Condition::all()
        .add(outbox::Column::SentAt.is_null())
        .add(outbox::Column::RunAfter.lte(now))
        .add(Condition::any().add(until.is_null()).add(until.lt(now)))
}

/// Writes that a mail was sent. Whoever holds it now: it is true.
pub(super) async fn sent(registry: &Registry, mail: &Leased, now: DateTime<Utc>) -> Result<(), DbErr> {
    let_go(mail)
        .col_expr(outbox::Column::Error, Expr::value(None::<String>))
        .col_expr(outbox::Column::SentAt, Expr::value(now))
        .exec(registry.db())
        .await?;
    Ok(())
}

/// Writes why a mail was not sent, and when it is tried again. Says nothing once it is another's.
pub(super) async fn failed(registry: &Registry, mail: &Leased, error: &str, now: DateTime<Utc>) -> Result<Fate, DbErr> {
    let attempts = mail.row.attempts + 1;
    let is_over = attempts >= TRIED_TIMES && now - mail.row.created_at >= TRIED_FOR;
    let run_after = if is_over { NEVER } else { now + put_off(attempts) };
    let_go(mail)
        .col_expr(outbox::Column::Error, Expr::value(error))
        .col_expr(outbox::Column::RunAfter, Expr::value(run_after))
        .filter(outbox::Column::LeaseHolder.eq(mail.holder))
        .exec(registry.db())
        .await?;
    Ok(if is_over { Fate::GivenUp } else { Fate::TriedAgain })
}

/// An attempt more, and nobody sending it.
fn let_go(mail: &Leased) -> sea_orm::UpdateMany<outbox::Entity> {
    outbox::Entity::update_many()
        .col_expr(outbox::Column::Attempts, Expr::col(outbox::Column::Attempts).add(1))
        .col_expr(outbox::Column::LeaseHolder, Expr::value(None::<Uuid>))
        .col_expr(outbox::Column::LeaseUntil, Expr::value(None::<DateTime<Utc>>))
        .filter(outbox::Column::Id.eq(mail.row.id))
        .filter(outbox::Column::SentAt.is_null())
}

/// How many mails wait to be sent; those that were given up wait no more.
pub(super) async fn waiting(registry: &Registry) -> Result<u64, DbErr> {
    outbox::Entity::find()
        .filter(outbox::Column::SentAt.is_null())
        .filter(outbox::Column::RunAfter.lt(NEVER))
        .count(registry.db())
        .await
}

/// How long to put off a mail that failed so often.
pub(super) fn put_off(attempts: i32) -> Duration {
    let doubled = 1u32.checked_shl(attempts.unsigned_abs().saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST_RETRY.saturating_mul(doubled).min(LONGEST)
}
