//! Shares of servers' connections, as they stand in the registry: heard from nodes, dealt, and given back.
//!
//! A server's row is locked while its shares are dealt, so that all replicas count the same.

mod anchors;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::TimeDelta;
use sea_orm::sea_query::{Expr, LockType, OnConflict};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, DbErr, EntityTrait, ExprTrait, IntoActiveModel, QueryFilter, QueryOrder, QuerySelect,
};
use tenancy::feed::FeedRequest;
use tenancy::seal::Sealed;
use tenancy::share::{Anchor, Holding, Kept, Share, ShareReport, deal};
use uuid::Uuid;

pub(crate) use anchors::Left;

use super::entities::{history, servers, shares};
use super::{Registry, RegistryTransaction};

/// No budget is larger, and so no process has more.
const MOST: u32 = 1_000_000;
/// A process of which nothing is left, and which was not heard for this long, does not come back.
const COMES_BACK: TimeDelta = TimeDelta::days(30);
/// The kind of server whose connections are dealt: files have none.
const DEALT: &str = "postgres";

fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn number(grant: u64) -> i64 {
    i64::try_from(grant).unwrap_or(i64::MAX)
}

fn holding(row: &shares::Model) -> Holding {
    Holding {
        holder: row.holder,
        grant: row.number.unsigned_abs(),
        share: unsigned(row.share),
        held: unsigned(row.held),
        wanted: unsigned(row.wanted),
        is_unknown: false,
        is_fenced: row.is_fenced,
    }
}

/// Whether nothing is held of a share that was freed of a silent process. It is kept for when the process comes back.
pub(super) const fn is_spent(row: &shares::Model) -> bool {
    row.is_fenced && row.held == 0
}

/// Whether another need is worth a new deal: a quarter more or less, or more than there is.
fn is_other_need(row: &shares::Model, wanted: u32) -> bool {
    let before = unsigned(row.wanted);
    let is_short = wanted > unsigned(row.share) && wanted != before;
    is_short || wanted.abs_diff(before) * 4 > Ord::max(before, 4)
}

/// All shares as they were dealt last.
#[derive(Debug)]
pub(super) struct Dealt {
    deals: i64,
    by_holder: HashMap<Uuid, Vec<Share>>,
}

fn share(server: &servers::Model, row: &shares::Model) -> Share {
    // Of the rate each node has the part that it has of the connections.
    let (rate, budget) = (i64::from(server.connect_rate), i64::from(server.connection_budget));
    let part = rate * i64::from(row.share) / Ord::max(budget, 1);
    Share {
        server: server.name.clone(),
        grant: row.number.unsigned_abs(),
        connections: unsigned(row.share),
        connect_rate: u32::try_from(Ord::max(part, 1)).unwrap_or(u32::MAX),
        anchor: row.anchor.zip(row.sealed_anchor.as_ref()).filter(|_| row.is_anchor_made).map(|(id, sealed)| {
            let sealed_url = Sealed::from_stored(sealed.as_str());
            Anchor { id, sealed_url }
        }),
    }
}

/// Whether a node should hear of its shares: they are not those that it told of.
pub(super) fn are_other(told: &[ShareReport], shares: &[Share]) -> bool {
    let is_told = |share: &Share| told.iter().any(|told| told.server == share.server && told.grant == share.grant);
    shares.iter().any(|share| !is_told(share))
}

impl Registry {
    /// Takes in what a process says of its shares, and deals again where that changes anything.
    pub(crate) async fn settle_shares(&self, request: &FeedRequest) -> Result<(), DbErr> {
        let Some(holder) = request.holder else { return Ok(()) };
        let servers = servers::Entity::find().filter(servers::Column::Engine.eq(DEALT)).all(self.db()).await?;
        let rows = self.shares_of(holder).await?;
        let mut is_changed = false;
        for server in &servers {
            let said = request.shares.iter().find(|report| report.server == server.name);
            let nothing = || Kept::default().report(&server.name, 0, 0);
            let report = said.cloned().unwrap_or_else(nothing);
            let is_settled = rows.get(&server.id).is_some_and(|row| {
                let mut heard = holding(row);
                heard.wanted = report.wanted;
                let is_same = !heard.hear(&report) && heard.grant == row.number.unsigned_abs();
                let is_news = is_other_need(row, report.wanted) || report.is_anchored && !row.is_anchored;
                is_same && !row.is_leaving && !is_news
            });
            if !is_settled {
                is_changed |= self.settle_share(server.id, request, holder, &report).await?;
            }
        }
        if is_changed {
            self.announce_again();
        }
        Ok(())
    }

    /// The shares of a process as they were dealt last, by the count of deals that the history told.
    pub(super) async fn dealt_shares(&self, holder: Option<Uuid>, deals: i64) -> Result<Vec<Share>, DbErr> {
        // A node of an older version says nothing of shares.
        let Some(holder) = holder else { return Ok(Vec::new()) };
        let mut kept = self.dealt.lock().await;
        if kept.as_ref().is_none_or(|kept| kept.deals != deals) {
            // Read once for all nodes that wait here.
            let servers = servers::Entity::find().filter(servers::Column::Engine.eq(DEALT)).all(self.db()).await?;
            let mut by_holder: HashMap<Uuid, Vec<Share>> = HashMap::new();
            for row in shares::Entity::find().all(self.db()).await? {
                if let Some(server) = servers.iter().find(|server| server.id == row.server_id) {
                    by_holder.entry(row.holder).or_default().push(share(server, &row));
                }
            }
            *kept = Some(Dealt { deals, by_holder });
        }
        Ok(kept.as_ref().and_then(|kept| kept.by_holder.get(&holder).cloned()).unwrap_or_default())
    }

    async fn shares_of(&self, holder: Uuid) -> Result<BTreeMap<Uuid, shares::Model>, DbErr> {
        let rows = shares::Entity::find().filter(shares::Column::Holder.eq(holder)).all(self.db()).await?;
        Ok(rows.into_iter().map(|row| (row.server_id, row)).collect())
    }

    async fn settle_share(
        &self,
        server: Uuid,
        request: &FeedRequest,
        holder: Uuid,
        report: &ShareReport,
    ) -> Result<bool, DbErr> {
        let transaction = self.begin().await?;
        let Some((budget, mut rows)) = lock_shares(&transaction, server).await? else { return Ok(false) };
        let (node, now) = (request.node.as_uuid(), self.now());
        // A node's folder is one process' at a time: whatever came before is gone, and what it still says came late.
        let is_of_the_past = rows.iter().any(|row| row.node_id == node && row.holder > holder && !row.is_leaving);
        if is_of_the_past {
            return Ok(false);
        }
        let is_past = |row: &shares::Model| row.node_id == node && row.holder < holder;
        drop_spent(&transaction, &mut rows, |row| is_past(row) || row.heard_at < now - COMES_BACK).await?;
        for row in rows.iter_mut().filter(|row| is_past(row) && !row.is_leaving) {
            row.is_leaving = true;
            row.heard_at = now;
            write(&transaction, row).await?;
        }
        let at = rows.iter().position(|row| row.holder == holder);
        let heard = match at.map(|at| &rows[at]) {
            // It was said to be gone, and is not.
            Some(row) if row.is_leaving && !row.is_fenced => {
                let kept = holding(row);
                Holding { held: Ord::max(kept.held, report.at_most), wanted: report.wanted, is_unknown: true, ..kept }
            }
            Some(row) => {
                let mut kept = holding(row);
                kept.hear(report);
                kept
            }
            None => Holding::new(holder, report),
        };
        let before = at.map(|at| rows[at].clone());
        // Of one that was fenced the roles are dropped, or will be: the next anchor has another.
        let anchor = before.as_ref().filter(|row| !row.is_fenced);
        let row = shares::Model {
            server_id: server,
            holder,
            node_id: node,
            share: signed(heard.share),
            // A budget may have been larger when it was dealt.
            held: signed(Ord::min(heard.held, MOST)),
            number: number(heard.grant),
            wanted: signed(heard.wanted),
            is_leaving: false,
            heard_at: now,
            anchor: anchor.and_then(|row| row.anchor),
            anchor_number: before.as_ref().map_or(0, |row| row.anchor_number),
            sealed_anchor: anchor.and_then(|row| row.sealed_anchor.clone()),
            is_anchor_made: anchor.is_some_and(|row| row.is_anchor_made),
            is_anchored: report.is_anchored || before.is_some_and(|row| row.is_anchored),
            is_fenced: false,
        };
        write(&transaction, &row).await?;
        let has_anchor = row.is_anchor_made;
        match at {
            Some(at) => rows[at] = row,
            None => rows.push(row),
        }
        let is_changed = self.deal_rows(&transaction, budget, &mut rows, heard.is_unknown.then_some(holder)).await?;
        transaction.commit().await?;
        if !has_anchor {
            self.newcomer.notify_one();
        }
        Ok(is_changed)
    }

    /// Deals a server's budget again: it is another one, or its connections are opened at another rate.
    pub(crate) async fn deal_again(&self, transaction: &RegistryTransaction, server: Uuid) -> Result<(), DbErr> {
        let Some((budget, mut rows)) = lock_shares(transaction, server).await? else { return Ok(()) };
        for row in rows.iter_mut().filter(|row| !row.is_leaving) {
            // A grant of another number is heard, though it be for as many.
            row.number += 1;
            write(transaction, row).await?;
        }
        if !self.deal_rows(transaction, budget, &mut rows, None).await? {
            count_deal(transaction).await?;
        }
        Ok(())
    }

    /// All processes of a node are gone, or are taken to be: what they have left ends with their sessions. One that was told of
    /// an anchor and has not ended for sure may come back: then what it was granted before must not count.
    pub(crate) async fn leave_shares(
        &self,
        transaction: &RegistryTransaction,
        node: Uuid,
        has_ended: bool,
    ) -> Result<(), DbErr> {
        let on = shares::Entity::find().filter(shares::Column::NodeId.eq(node)).all(transaction).await?;
        let servers: BTreeSet<Uuid> = on.into_iter().map(|row| row.server_id).collect();
        for server in servers {
            let Some((_, mut rows)) = lock_shares(transaction, server).await? else { continue };
            if has_ended {
                drop_spent(transaction, &mut rows, |row| row.node_id == node).await?;
            }
            for row in rows.into_iter().filter(|row| row.node_id == node) {
                let is_fenced = !has_ended && row.anchor_number > 0;
                let left = shares::Model { is_leaving: true, is_fenced, heard_at: self.now(), ..row };
                write(transaction, &left).await?;
            }
        }
        Ok(())
    }

    /// All shares of a server of which anything is left.
    pub(crate) async fn shares_on(&self, server: Uuid) -> Result<Vec<shares::Model>, DbErr> {
        let on_it = shares::Entity::find().filter(shares::Column::ServerId.eq(server));
        let rows =
            on_it.order_by_asc(shares::Column::NodeId).order_by_asc(shares::Column::Holder).all(self.db()).await?;
        Ok(rows.into_iter().filter(|row| !is_spent(row)).collect())
    }

    /// The server has shown how many sessions are left of a process that is gone: the rest of its share is dealt to others.
    pub(crate) async fn shrink_left_share(&self, left: &shares::Model, sessions: u32) -> Result<(), DbErr> {
        let transaction = self.begin().await?;
        let Some((budget, mut rows)) = lock_shares(&transaction, left.server_id).await? else { return Ok(()) };
        // Not if it was heard again since the server was looked at.
        let Some(at) = rows.iter().position(|row| row == left) else { return Ok(()) };
        if left.is_fenced {
            // It may come back: the row says that what it was granted counts no more.
            let mut kept = holding(left);
            kept.shrink(sessions);
            let (share, held, number) = (signed(kept.share), signed(kept.held), number(kept.grant));
            // From now on it is kept for a while.
            let heard_at = if sessions == 0 { self.now() } else { left.heard_at };
            rows[at] = shares::Model { share, held, number, heard_at, ..rows[at].clone() };
            write(&transaction, &rows[at]).await?;
        } else if sessions == 0 {
            delete(&transaction, &rows.remove(at)).await?;
        } else {
            rows[at].held = Ord::min(signed(sessions), left.held);
            write(&transaction, &rows[at]).await?;
        }
        self.deal_rows(&transaction, budget, &mut rows, None).await?;
        transaction.commit().await?;
        self.announce_again();
        Ok(())
    }

    /// Deals, writes down what changed, and has all replicas tell their nodes. Those that leave get nothing more; the one whose
    /// grant is unknown gets another.
    async fn deal_rows(
        &self,
        transaction: &RegistryTransaction,
        budget: u32,
        rows: &mut [shares::Model],
        unknown: Option<Uuid>,
    ) -> Result<bool, DbErr> {
        let leaving: u32 = rows.iter().filter(|row| row.is_leaving).map(|row| unsigned(row.held)).sum();
        let staying = rows.iter().filter(|row| !row.is_leaving).map(holding);
        let mut holdings: Vec<Holding> =
            staying.map(|holding| Holding { is_unknown: unknown == Some(holding.holder), ..holding }).collect();
        if !deal(budget.saturating_sub(leaving), &mut holdings, self.now().timestamp_millis().unsigned_abs()) {
            return Ok(false);
        }
        for holding in &holdings {
            if let Some(row) = rows.iter_mut().find(|row| row.holder == holding.holder)
                && row.number != number(holding.grant)
            {
                row.share = signed(holding.share);
                row.held = signed(holding.held);
                row.number = number(holding.grant);
                write(transaction, row).await?;
            }
        }
        count_deal(transaction).await?;
        Ok(true)
    }
}

/// Reads the budget and all shares of a server. No other replica deals them until the transaction ends.
async fn lock_shares(
    transaction: &RegistryTransaction,
    server: Uuid,
) -> Result<Option<(u32, Vec<shares::Model>)>, DbErr> {
    let locked = servers::Entity::find_by_id(server).lock(LockType::NoKeyUpdate).one(transaction).await?;
    let Some(locked) = locked else { return Ok(None) };
    let rows = shares::Entity::find().filter(shares::Column::ServerId.eq(server)).all(transaction).await?;
    Ok(Some((unsigned(locked.connection_budget), rows)))
}

/// Has all replicas read the shares again.
pub(crate) async fn count_deal(transaction: &RegistryTransaction) -> Result<(), DbErr> {
    history::Entity::update_many()
        .col_expr(history::Column::Shares, Expr::col(history::Column::Shares).add(1))
        .filter(history::Column::Id.eq(1))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Takes out those of these shares of which nothing is left.
async fn drop_spent(
    transaction: &RegistryTransaction,
    rows: &mut Vec<shares::Model>,
    is_meant: impl Fn(&shares::Model) -> bool,
) -> Result<(), DbErr> {
    let spent: Vec<shares::Model> = rows.extract_if(.., |row| is_spent(row) && is_meant(row)).collect();
    for row in &spent {
        delete(transaction, row).await?;
    }
    Ok(())
}

async fn delete(transaction: &RegistryTransaction, row: &shares::Model) -> Result<(), DbErr> {
    shares::Entity::delete_by_id((row.server_id, row.holder)).exec(transaction).await?;
    Ok(())
}

async fn write(transaction: &RegistryTransaction, row: &shares::Model) -> Result<(), DbErr> {
    let again = OnConflict::columns([shares::Column::ServerId, shares::Column::Holder])
        .update_columns([
            shares::Column::Share,
            shares::Column::Held,
            shares::Column::Number,
            shares::Column::Wanted,
            shares::Column::IsLeaving,
            shares::Column::HeardAt,
            shares::Column::Anchor,
            shares::Column::AnchorNumber,
            shares::Column::SealedAnchor,
            shares::Column::IsAnchorMade,
            shares::Column::IsAnchored,
            shares::Column::IsFenced,
        ])
        .to_owned();
    let row = row.clone().into_active_model().reset_all();
    shares::Entity::insert(row).on_conflict(again).exec_without_returning(transaction).await?;
    Ok(())
}
