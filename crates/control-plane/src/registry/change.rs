//! A change of the registry that data planes can see.
//!
//! Revisions are given out under one row lock, taken last before the commit: they are in commit order, and a node that
//! reads up to one of them has missed none before it. What a change does to the audit trail commits with it.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, LockType, SimpleExpr};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use tenancy::audit::{Chain, Event};
use tenancy::route::Revision;
use uuid::Uuid;

use super::each::each;
use super::entities::{history, tenants};
use super::{Registry, RegistryTransaction};
use crate::audit::{self, Account, Deed};

/// Tenants named in one statement.
const AT_ONCE: usize = 500;

/// A transaction, and the tenants whose news it is. Dropped without a commit, it changes nothing.
pub(crate) struct Change {
    registry: Registry,
    transaction: RegistryTransaction,
    touched: BTreeSet<Uuid>,
    /// Tenants whose rows nobody else changes until the change ends.
    locked: BTreeSet<Uuid>,
    /// The operator whose call this is part of: its change says what it did, or does not commit.
    account: Option<Account>,
    events: Vec<(Chain, Event)>,
    /// The schema version that the fleet has from here on.
    fleet: Option<i32>,
    /// The fleet must not be past this version at the commit.
    fleet_at_most: Option<i32>,
}

impl Registry {
    /// Begins a change.
    pub(crate) async fn change(&self) -> Result<Change, DbErr> {
        let (transaction, account) = (self.begin().await?, Account::current());
        let (touched, locked, events) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        let (fleet, fleet_at_most) = (None, None);
        Ok(Change { registry: self.clone(), transaction, touched, locked, account, events, fleet, fleet_at_most })
    }
}

impl Change {
    /// Where the change's statements go.
    pub(crate) const fn db(&self) -> &RegistryTransaction {
        &self.transaction
    }

    /// Now, as precise as the registry keeps it.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.registry.now()
    }

    /// The moment of the change, as the registry itself says it: what is due then is due for whoever looks later.
    pub(crate) fn present(&self) -> SimpleExpr {
        self.registry.present()
    }

    /// The epoch that the registry's history is in.
    pub(crate) async fn epoch(&self) -> Result<Uuid, DbErr> {
        Ok(self.registry.history_in(&self.transaction).await?.epoch)
    }

    /// Locks tenants, in the order in which every change does; answers those that there are, with their schema versions.
    pub(crate) async fn lock(&mut self, tenants: impl IntoIterator<Item = Uuid>) -> Result<Vec<(Uuid, i32)>, DbErr> {
        let tenants: BTreeSet<Uuid> = tenants.into_iter().collect();
        let found = lock(&self.transaction, tenants.iter().copied()).await?;
        self.locked.extend(tenants);
        Ok(found)
    }

    /// Notes that data planes have news of this tenant: it gets the next revision at the commit.
    pub(crate) fn touch(&mut self, tenant: impl Into<Uuid>) {
        self.touched.insert(tenant.into());
    }

    /// Notes what the change does, for the audit trail.
    pub(crate) fn audit(&mut self, deed: Deed) {
        let (chain, event) = deed.event(self.account.as_ref(), self.now());
        self.record(chain, event);
    }

    /// As [`Self::audit`], of what no operator's call does: a call says itself what it did.
    pub(crate) fn audit_own(&mut self, deed: impl FnOnce() -> Deed) {
        if self.account.is_none() {
            self.audit(deed());
        }
    }

    /// Notes what somebody else noticed, for the audit trail.
    pub(crate) fn record(&mut self, chain: Chain, event: Event) {
        self.events.push((chain, event));
    }

    /// The fleet's schema version is another with the commit.
    pub(crate) const fn move_fleet(&mut self, version: i32) {
        self.fleet = Some(version);
    }

    /// The change touches a tenant, and holds only while the fleet's schema version is not past this one.
    pub(crate) const fn hold_fleet_at(&mut self, version: i32) {
        self.fleet_at_most = Some(version);
    }

    /// Gives out the revisions and commits; answers the newest of them, or none when nobody was touched.
    pub(crate) async fn commit(self) -> Result<Option<Revision>, DbErr> {
        let Self { registry, transaction, touched, locked, account, events, fleet, fleet_at_most } = self;
        if let Some(account) = &account {
            if events.is_empty() {
                return Err(DbErr::Custom(
                    "an operator's change has no deed: say by Change::audit what it does".to_owned(),
                ));
            }
            account.settle();
        }
        if touched.is_empty() {
            audit::append(&transaction, events).await?;
            if let Some(version) = fleet {
                history::Entity::update_many()
                    .col_expr(history::Column::SchemaVersion, Expr::value(version))
                    .filter(history::Column::Id.eq(1))
                    .exec(&transaction)
                    .await?;
            }
            transaction.commit().await?;
            return Ok(None);
        }
        // All of them before the history's row: who holds a tenant waits for that row.
        lock(&transaction, touched.difference(&locked).copied()).await?;
        // After tenants and before the history, wherever both are locked.
        audit::append(&transaction, events).await?;
        let count = i64::try_from(touched.len()).unwrap_or(i64::MAX);
        let mut row = history::Entity::update_many()
            .col_expr(history::Column::Head, Expr::col(history::Column::Head).add(count))
            .filter(history::Column::Id.eq(1));
        if let Some(version) = fleet {
            row = row.col_expr(history::Column::SchemaVersion, Expr::value(version));
        }
        let row = row.exec_with_returning(&transaction).await?.pop().ok_or_else(|| DbErr::RecordNotUpdated)?;
        if fleet_at_most.is_some_and(|version| row.schema_version > version) {
            return Err(DbErr::Custom("the fleet's schema version moved meanwhile".to_owned()));
        }
        let revisions: Vec<(Uuid, i64)> = touched.into_iter().zip(row.head - count + 1..).collect();
        for some in revisions.chunks(AT_ONCE) {
            tenants::Entity::update_many()
                .col_expr(tenants::Column::Revision, each(tenants::Column::Id, some.iter().copied()))
                .filter(tenants::Column::Id.is_in(some.iter().map(|(tenant, _)| *tenant)))
                .exec(&transaction)
                .await?;
        }
        transaction.commit().await?;
        let head = Revision(row.head.unsigned_abs());
        registry.announce(head);
        Ok(Some(head))
    }
}

/// Locks the rows of tenants one after the other, in the order of their ids, which is that of what is given.
async fn lock(
    transaction: &RegistryTransaction,
    tenants: impl Iterator<Item = Uuid>,
) -> Result<Vec<(Uuid, i32)>, DbErr> {
    let mut found = Vec::new();
    for some in tenants.collect::<Vec<_>>().chunks(AT_ONCE) {
        let rows = tenants::Entity::find()
            .select_only()
            .columns([tenants::Column::Id, tenants::Column::SchemaVersion])
            .filter(tenants::Column::Id.is_in(some.iter().copied()))
            .order_by_asc(tenants::Column::Id)
            .lock(LockType::NoKeyUpdate)
            .into_tuple::<(Uuid, i32)>()
            .all(transaction)
            .await?;
        found.extend(rows);
    }
    Ok(found)
}
