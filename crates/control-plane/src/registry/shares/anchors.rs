//! Anchors in the registry: named and sealed before a server hears of them, told to their nodes once they are made, and what
//! becomes of the share when one is gone.

use chrono::{DateTime, Utc};
use sea_orm::sea_query::Query;
use sea_orm::{ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter};
use tenancy::seal::Sealed;
use uuid::Uuid;

use super::super::entities::{nodes, shares};
use super::super::{Registry, RegistryTransaction};
use super::{count_deal, is_spent, lock_shares, write};

/// What was told of it the process keeps to until it hears of another.
fn unmake(row: &mut shares::Model) {
    (row.anchor, row.sealed_anchor, row.is_anchor_made) = (None, None, false);
}

/// A share whose process is gone, or may be.
#[derive(Clone, Debug)]
pub(crate) struct Left {
    pub(crate) share: shares::Model,
    /// When its node was heard last.
    pub(crate) heard_at: DateTime<Utc>,
    /// Another process runs with the node's folder: this one has ended.
    pub(crate) is_replaced: bool,
}

impl Registry {
    /// Shares of processes that are gone, and of those whose nodes were not heard since this moment.
    pub(crate) async fn left_shares(&self, silent_since: DateTime<Utc>) -> Result<Vec<Left>, DbErr> {
        let heard = Query::select()
            .column(nodes::Column::Id)
            .from(nodes::Entity)
            .and_where(nodes::Column::LastSeen.gte(silent_since))
            .to_owned();
        let is_silent = shares::Column::NodeId.not_in_subquery(heard);
        let is_left = Condition::any().add(shares::Column::IsLeaving.eq(true)).add(is_silent);
        let mut left = shares::Entity::find().filter(is_left).all(self.db()).await?;
        left.retain(|share| !is_spent(share));
        if left.is_empty() {
            return Ok(Vec::new());
        }
        let of_nodes: Vec<Uuid> = left.iter().map(|share| share.node_id).collect();
        let heard = nodes::Entity::find().filter(nodes::Column::Id.is_in(of_nodes.clone())).all(self.db()).await?;
        let all = shares::Entity::find().filter(shares::Column::NodeId.is_in(of_nodes)).all(self.db()).await?;
        let left = left.into_iter().map(|share| {
            let heard = heard.iter().find(|node| node.id == share.node_id);
            let is_later = |other: &&shares::Model| other.node_id == share.node_id && other.holder > share.holder;
            Left {
                heard_at: heard.map_or(share.heard_at, |node| node.last_seen),
                is_replaced: all.iter().any(|other| is_later(&other)),
                share,
            }
        });
        Ok(left.collect())
    }

    /// Waits until this replica hears of a process that has no anchor yet.
    pub(crate) async fn newcomer(&self) {
        self.newcomer.notified().await;
    }

    /// Shares of processes that run, as far as is known, and have no anchor yet.
    pub(crate) async fn shares_without_anchor(&self) -> Result<Vec<shares::Model>, DbErr> {
        let without =
            Condition::all().add(shares::Column::IsAnchorMade.eq(false)).add(shares::Column::IsLeaving.eq(false));
        shares::Entity::find().filter(without).all(self.db()).await
    }

    /// Shares of processes that run, as far as is known, and were told of their anchors.
    pub(crate) async fn shares_with_anchor(&self) -> Result<Vec<shares::Model>, DbErr> {
        let with = Condition::all().add(shares::Column::IsAnchorMade.eq(true)).add(shares::Column::IsLeaving.eq(false));
        shares::Entity::find().filter(with).all(self.db()).await
    }

    /// The server has not the anchor that was made: the process gets another.
    pub(crate) async fn forget_anchor(&self, share: &shares::Model) -> Result<(), DbErr> {
        let is_same = |row: &shares::Model| row.anchor == share.anchor && !row.is_leaving;
        self.change_share(share, is_same, unmake, false).await.map(drop)
    }

    /// The number of a process' next anchor: later than any before, also than those that a restored registry has forgotten.
    pub(crate) fn next_anchor_number(&self, share: &shares::Model) -> i64 {
        Ord::max(share.anchor_number + 1, self.now().timestamp_millis())
    }

    /// Writes down how a process will open its anchor, before its server hears of it. Answers the share as it is now, or nothing
    /// if it is another by now.
    pub(crate) async fn name_anchor(
        &self,
        share: &shares::Model,
        (id, number): (Uuid, i64),
        url: &Sealed,
    ) -> Result<Option<shares::Model>, DbErr> {
        let named = |row: &mut shares::Model| {
            row.anchor = Some(id);
            row.anchor_number = number;
            row.sealed_anchor = Some(url.as_stored().to_owned());
        };
        let is_unnamed =
            |row: &shares::Model| row.anchor.is_none() && !row.is_leaving && row.anchor_number == share.anchor_number;
        self.change_share(share, is_unnamed, named, false).await
    }

    /// The server lets the anchor in: the node is told of it, with another grant.
    pub(crate) async fn anchor_is_made(&self, share: &shares::Model) -> Result<bool, DbErr> {
        let now = self.now().timestamp_millis();
        let made = |row: &mut shares::Model| {
            if !std::mem::replace(&mut row.is_anchor_made, true) {
                row.number = Ord::max(row.number + 1, now);
            }
        };
        // Another replica may have been faster.
        let is_same = |row: &shares::Model| row.anchor == share.anchor && !row.is_leaving;
        let made = self.change_share(share, is_same, made, true).await?;
        if made.is_some() {
            self.announce_again();
        }
        Ok(made.is_some())
    }

    /// A silent process whose anchor is gone: nothing more is dealt to it, and its login roles may be dropped. Not if it was
    /// heard again meanwhile.
    pub(crate) async fn fence_share(&self, left: &shares::Model) -> Result<bool, DbErr> {
        let fenced = |row: &mut shares::Model| (row.is_leaving, row.is_fenced) = (true, true);
        Ok(self.change_share(left, |row| row == left, fenced, false).await?.is_some())
    }

    /// Servers reach these by another address from now on: each process gets another anchor.
    pub(crate) async fn forget_anchors(&self, transaction: &RegistryTransaction, server: Uuid) -> Result<(), DbErr> {
        let Some((_, rows)) = lock_shares(transaction, server).await? else { return Ok(()) };
        for mut row in rows.into_iter().filter(|row| !row.is_leaving) {
            unmake(&mut row);
            write(transaction, &row).await?;
        }
        Ok(())
    }

    /// Changes a share that is still as it should be, under the lock of its server.
    async fn change_share(
        &self,
        share: &shares::Model,
        is_so: impl Fn(&shares::Model) -> bool,
        change: impl FnOnce(&mut shares::Model),
        is_told: bool,
    ) -> Result<Option<shares::Model>, DbErr> {
        let transaction = self.begin().await?;
        let Some((_, rows)) = lock_shares(&transaction, share.server_id).await? else { return Ok(None) };
        let same = rows.into_iter().find(|row| row.holder == share.holder && is_so(row));
        let Some(mut row) = same else { return Ok(None) };
        change(&mut row);
        write(&transaction, &row).await?;
        if is_told {
            count_deal(&transaction).await?;
        }
        transaction.commit().await?;
        Ok(Some(row))
    }
}
