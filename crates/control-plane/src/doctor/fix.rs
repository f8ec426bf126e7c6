//! A fix: the operations that put right what was found, ordered together, and what came of them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sea_orm::sea_query::LockType;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use service::Problem;
use tokio::time::Instant;
use uuid::Uuid;

use super::servers::{Stray, unreachable};
use super::tenants::Seen;
use super::{Cure, Doctor, Finding, Kind};
use crate::audit::Deed;
use crate::plane::Plane;
use crate::provision::{Kind as Work, On, Order, enqueue, go_on, is_done, is_held, open, wait};
use crate::registry::entities::{operations, servers, tenants};

/// Orders what puts right the findings that can be, on whose word it says; one that is ordered already is not ordered again.
pub(crate) async fn order(plane: &Plane, findings: &mut [Finding], requested_by: &str) -> Result<(), Problem> {
    let sick = findings.iter().filter(|finding| finding.cure.is_some()).filter_map(|finding| finding.on);
    let mut ordered: BTreeMap<On, Option<Uuid>> = sick.map(|on| (on, None)).collect();
    if ordered.is_empty() {
        return Ok(());
    }
    let mut change = plane.registry.change().await?;
    lock(&change, &ordered).await?;
    let epoch = change.epoch().await?;
    for (on, id) in &mut ordered {
        let operation = match open(&change, *on, Work::Fix).await? {
            // It looks anew at all that it is for: whatever history it was ordered in, it does no harm.
            Some(held) if is_held(&held, epoch) => go_on(&change, held, epoch).await?,
            Some(open) => open,
            None => {
                let (kind, run_after, requested_by) = (Work::Fix, change.now(), requested_by.to_owned());
                enqueue(&change, Order { kind, on: *on, run_after, is_forced: false, requested_by }).await?
            }
        };
        *id = Some(operation.id);
        change.audit(Deed::on("doctor.fix-ordered", *on).after(&operation.id));
    }
    change.commit().await?;
    plane.wake.ring();
    for finding in findings {
        // Of a tenant, what has no cure of its own may go with what has. A stray that is told is told of itself alone.
        let is_met = finding.cure.is_some() || finding.on.is_some_and(|on| on.tenant().is_some());
        finding.operation = finding.on.filter(|_| is_met).and_then(|on| ordered.get(&on).copied().flatten());
    }
    Ok(())
}

/// Nobody else orders anything for them until the change ends. In one order, so that two pages do not wait for each other.
async fn lock(change: &crate::registry::change::Change, all: &BTreeMap<On, Option<Uuid>>) -> Result<(), DbErr> {
    let tenants = tenants::Entity::find()
        .filter(tenants::Column::Id.is_in(all.keys().filter_map(|on| on.tenant())))
        .order_by_asc(tenants::Column::Id);
    tenants.lock(LockType::NoKeyUpdate).all(change.db()).await?;
    let servers = servers::Entity::find()
        .filter(servers::Column::Id.is_in(all.keys().filter_map(|on| on.server())))
        .order_by_asc(servers::Column::Id);
    servers.lock(LockType::NoKeyUpdate).all(change.db()).await.map(drop)
}

/// Waits for what was ordered, no longer than this, and looks again at what it was ordered for. Answers whether all of it has
/// ended.
pub(crate) async fn settle(plane: &Plane, findings: &mut [Finding], patience: Duration) -> Result<bool, DbErr> {
    let deadline = Instant::now() + patience;
    let mut ended: BTreeMap<Uuid, operations::Model> = BTreeMap::new();
    for id in findings.iter().filter_map(|finding| finding.operation) {
        if let Entry::Vacant(entry) = ended.entry(id) {
            let left = deadline.saturating_duration_since(Instant::now());
            entry.insert(wait(plane, id, left).await?);
        }
    }
    let mut again: BTreeMap<On, Again> = BTreeMap::new();
    for finding in &mut *findings {
        let (Some(on), Some(operation)) = (finding.on, finding.operation.and_then(|id| ended.get(&id))) else {
            continue;
        };
        if operation.finished_at.is_none() {
            let id = operation.id;
            finding.detail = format!("{} It is being put right: GET /v1/operations/{id}.", finding.detail);
            continue;
        }
        if let Entry::Vacant(entry) = again.entry(on) {
            entry.insert(Doctor::new(plane.clone()).again(on).await?);
        }
        finding.is_fixed = again.get(&on).is_some_and(|again| again.is_without(finding));
        if finding.is_fixed {
            tracing::info!(kind = ?finding.kind, server = finding.server, database = finding.database,
                tenant = finding.tenant, "the doctor fixed what it found: {}", finding.detail);
        } else if !is_done(operation) {
            let why = operation.error.as_deref().unwrap_or("nothing is said of why");
            finding.detail = format!("{} Fixing it failed: {why}.", finding.detail);
        }
    }
    Ok(ended.values().all(|operation| operation.finished_at.is_some()))
}

/// What was found at the look after.
struct Again {
    findings: Vec<Finding>,
    strays: BTreeSet<Stray>,
}

impl Again {
    fn is_without(&self, finding: &Finding) -> bool {
        let is_unknown = |it: &Finding| matches!(it.kind, Kind::ServerUnreachable | Kind::DatabaseUnreachable);
        let name = || finding.database.as_ref().and_then(|name| name.parse().ok());
        !self.findings.iter().any(is_unknown)
            && match finding.cure {
                Some(Cure::DropDatabase) => name().is_some_and(|name| !self.strays.contains(&(name, None))),
                Some(Cure::DropRole(slot)) => name().is_some_and(|name| !self.strays.contains(&(name, Some(slot)))),
                _ => !self.findings.iter().any(|it| it.kind == finding.kind && it.database == finding.database),
            }
    }
}

impl Doctor {
    /// Looks again at a tenant, or at what of a server has a cure.
    async fn again(&self, on: On) -> Result<Again, DbErr> {
        let db = self.plane.registry.db();
        let (mut findings, mut strays) = (Vec::new(), BTreeSet::new());
        match on {
            On::Tenant(tenant) => {
                if let Some(seen) = Seen::read(db, tenant).await? {
                    let (servers, sick) = self.servers_of(std::slice::from_ref(&seen)).await?;
                    findings = sick;
                    findings.extend(self.examined(&servers, &seen).await);
                }
            }
            On::Server(server) => {
                if let Some(server) = servers::Entity::find_by_id(server).one(db).await? {
                    match self.engine(&server).await {
                        Ok(engine) => match self.strays_past(engine.as_ref(), None).await? {
                            Ok((found, _)) => strays = found,
                            Err(error) => findings.push(unreachable(&server, &error)),
                        },
                        Err(sick) => findings.push(sick),
                    }
                    findings.extend(Box::pin(self.keeping(&server)).await?);
                }
            }
        }
        Ok(Again { findings, strays })
    }
}
