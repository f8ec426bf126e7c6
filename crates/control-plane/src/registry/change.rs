//! A change of the registry that data planes can see.
//!
//! Revisions are given out under one row lock, taken last before the commit: they are in commit order, and a node that
//! reads up to one of them has missed none before it. What a change does to the audit trail commits with it.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, LockType};
use sea_orm::{ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use tenancy::audit::{Chain, Event};
use tenancy::route::Revision;
use uuid::Uuid;

use super::Registry;
use super::entities::{history, tenants};
use crate::audit::{self, Account, Deed};

/// Tenants named in one statement.
const AT_ONCE: usize = 500;

/// A transaction, and the tenants whose news it is. Dropped without a commit, it changes nothing.
pub(crate) struct Change {
    registry: Registry,
    transaction: DatabaseTransaction,
    touched: BTreeSet<Uuid>,
    /// The operator whose call this is part of: its change says what it did, or does not commit.
    account: Option<Account>,
    events: Vec<(Chain, Event)>,
}

impl Registry {
    /// Begins a change.
    pub(crate) async fn change(&self) -> Result<Change, DbErr> {
        let (transaction, account) = (self.begin().await?, Account::current());
        Ok(Change { registry: self.clone(), transaction, touched: BTreeSet::new(), account, events: Vec::new() })
    }
}

impl Change {
    /// Where the change's statements go.
    pub(crate) const fn db(&self) -> &DatabaseTransaction {
        &self.transaction
    }

    /// Now, as precise as the registry keeps it.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.registry.now()
    }

    /// The epoch that the registry's history is in.
    pub(crate) async fn epoch(&self) -> Result<Uuid, DbErr> {
        Ok(self.registry.history_in(&self.transaction).await?.epoch)
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

    /// Notes what somebody else noticed, for the audit trail.
    pub(crate) fn record(&mut self, chain: Chain, event: Event) {
        self.events.push((chain, event));
    }

    /// Gives out the revisions and commits; answers the newest of them, or none when nobody was touched.
    pub(crate) async fn commit(self) -> Result<Option<Revision>, DbErr> {
        let Self { registry, transaction, touched, account, events } = self;
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
            transaction.commit().await?;
            return Ok(None);
        }
        // All of them before the history's row: who holds a tenant waits for that row.
        for some in touched.iter().copied().collect::<Vec<_>>().chunks(AT_ONCE) {
            tenants::Entity::find()
                .select_only()
                .column(tenants::Column::Id)
                .filter(tenants::Column::Id.is_in(some.iter().copied()))
                .order_by_asc(tenants::Column::Id)
                .lock(LockType::NoKeyUpdate)
                .into_tuple::<Uuid>()
                .all(&transaction)
                .await?;
        }
        // After tenants and before the history, wherever both are locked.
        audit::append(&transaction, events).await?;
        let count = i64::try_from(touched.len()).unwrap_or(i64::MAX);
        let row = history::Entity::update_many()
            .col_expr(history::Column::Head, Expr::col(history::Column::Head).add(count))
            .filter(history::Column::Id.eq(1))
            .exec_with_returning(&transaction)
            .await?
            .pop()
            .ok_or_else(|| DbErr::RecordNotUpdated)?;
        for (revision, tenant) in (row.head - count + 1..).zip(touched) {
            tenants::Entity::update_many()
                .col_expr(tenants::Column::Revision, Expr::value(revision))
                .filter(tenants::Column::Id.eq(tenant))
                .exec(&transaction)
                .await?;
        }
        transaction.commit().await?;
        let head = Revision(row.head.unsigned_abs());
        registry.announce(head);
        Ok(Some(head))
    }
}
