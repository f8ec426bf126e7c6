//! Taking in what data planes noticed: each batch once, whatever is repeated, and only here is it found out which tenant an
//! outsider aimed at.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, OnConflict};
use sea_orm::{ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};
use tenancy::audit::{Batch, Chain, Event, MAX_NAMES, Notice, Noticed};
use tenancy::{Slug, TenantId};
use uuid::Uuid;

use crate::registry::Registry;
use crate::registry::entities::{audit_spools, domains, tenants};
use crate::registry::slugs;

/// Who did it, where that is not known or not told.
const UNKNOWN: &str = "unknown";
/// Batches of a spool that never arrived.
const MISSING: &str = "audit.batches-missing";

/// Records a batch, unless it is recorded already. Answers the newest number of its spool that is.
pub(crate) async fn take(registry: &Registry, batch: Batch) -> Result<u64, DbErr> {
    let mut change = registry.change().await?;
    let number = i64::try_from(batch.number).unwrap_or(i64::MAX);
    let row = audit_spools::ActiveModel {
        spool: Set(batch.spool),
        node_id: Set(batch.node.into()),
        taken: Set(0),
        heard_at: Set(change.now()),
    };
    // Locks the spool's row: a twin of this batch waits, and finds it recorded.
    let again = OnConflict::column(audit_spools::Column::Spool).update_column(audit_spools::Column::HeardAt).to_owned();
    let spool = audit_spools::Entity::insert(row).on_conflict(again).exec_with_returning(change.db()).await?;
    if number <= spool.taken {
        change.commit().await?;
        return Ok(spool.taken.unsigned_abs());
    }
    let mut targets = Targets::default();
    let missing = number - spool.taken - 1;
    if missing > 0 {
        let event = Event { count: Some(missing.unsigned_abs()), ..event(&batch, change.now(), None, MISSING) };
        change.record(Chain::Platform, event);
    }
    for noticed in &batch.events {
        let named = bounded_names(noticed);
        let event = Event {
            actor: noticed.actor.as_deref().map_or_else(|| UNKNOWN.to_owned(), |actor| bounded(actor, 512)),
            from: noticed.from.as_deref().map(|from| bounded(from, 64)),
            tenant: noticed.tenant,
            count: noticed.count,
            detail: noticed.detail.as_deref().map(|detail| bounded(detail, 1_000)),
            ..event(&batch, noticed.at, noticed.request_id.as_deref(), noticed.notice.action())
        };
        match noticed.notice {
            Notice::CrossTenantAttempt => {
                let target = targets.of(change.db(), &named, noticed.tenant).await?;
                if let Some(target) = target {
                    // Those who were aimed at hear that they were, and not by whom: that is another customer.
                    let (request, action) = (noticed.request_id.as_deref(), noticed.notice.action());
                    let bare = self::event(&batch, noticed.at, request, action);
                    let named = named.clone();
                    change.record(
                        Chain::Tenant(target),
                        Event { tenant: Some(target), named, count: event.count, ..bare },
                    );
                }
                change.record(Chain::Platform, Event { named, target, ..event });
            }
            // The tenant's own trail tells what its principals and limits did.
            Notice::SuspendedRefused | Notice::LimitHit | Notice::BackgroundSession => {
                let chain = noticed.tenant.map_or(Chain::Platform, Chain::Tenant);
                change.record(chain, Event { named, ..event });
            }
            Notice::BadCredentials | Notice::DatabaseRefused | Notice::EventsDropped | Notice::Other => {
                change.record(Chain::Platform, Event { named, ..event });
            }
        }
    }
    audit_spools::Entity::update_many()
        .col_expr(audit_spools::Column::Taken, Expr::value(number))
        .filter(audit_spools::Column::Spool.eq(batch.spool))
        .exec(change.db())
        .await?;
    change.commit().await?;
    Ok(batch.number)
}

/// What every event of a batch says.
fn event(batch: &Batch, at: DateTime<Utc>, request_id: Option<&str>, action: &str) -> Event {
    Event {
        id: Uuid::now_v7(),
        at,
        action: action.to_owned(),
        actor: UNKNOWN.to_owned(),
        from: None,
        request_id: request_id.map(|id| bounded(id, 128)),
        tenant: None,
        target: None,
        subject: None,
        named: Vec::new(),
        before: None,
        after: None,
        node: Some(batch.node),
        count: None,
        detail: None,
    }
}

fn bounded_names(noticed: &Noticed) -> Vec<String> {
    noticed.named.iter().take(MAX_NAMES).map(|name| bounded(name, 256)).collect()
}

fn bounded(text: &str, longest: usize) -> String {
    // A NUL stands for bytes that are no text; Postgres keeps none.
    text.chars().take(longest).map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}

/// Whose the names of one batch are.
#[derive(Default)]
struct Targets(HashMap<String, Option<TenantId>>);

impl Targets {
    /// The first of the named tenants that is not the caller's own.
    async fn of(
        &mut self,
        db: &impl ConnectionTrait,
        names: &[String],
        own: Option<TenantId>,
    ) -> Result<Option<TenantId>, DbErr> {
        for name in names {
            let known = if let Some(known) = self.0.get(name) {
                *known
            } else {
                let found = look_up(db, name).await?;
                self.0.insert(name.clone(), found);
                found
            };
            if known.is_some() && known != own {
                return Ok(known);
            }
        }
        Ok(None)
    }
}

/// By id, slug or custom host, as admission reads them.
async fn look_up(db: &impl ConnectionTrait, name: &str) -> Result<Option<TenantId>, DbErr> {
    let by_id: Option<Uuid> = match name.parse::<Uuid>() {
        Ok(id) => {
            tenants::Entity::find_by_id(id).select_only().column(tenants::Column::Id).into_tuple().one(db).await?
        }
        Err(_) => None,
    };
    let found = match by_id {
        Some(id) => Some(id),
        None if name.parse::<Slug>().is_ok() => {
            tenants::Entity::find()
                .select_only()
                .column(tenants::Column::Id)
                .filter(slugs::is_of(name))
                .into_tuple()
                .one(db)
                .await?
        }
        None => domains::Entity::find_by_id(name).one(db).await?.map(|domain| domain.tenant_id),
    };
    Ok(found.map(Into::into))
}
