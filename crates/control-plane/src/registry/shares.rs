//! Shares of servers' connections, as they stand in the registry: heard from nodes, dealt, and given back.
//!
//! A server's row is locked while its shares are dealt, so that all replicas count the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use sea_orm::sea_query::{Expr, LockType, OnConflict, Query};
use sea_orm::{ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect};
use tenancy::feed::FeedRequest;
use tenancy::share::{Holding, Share, ShareReport, deal};
use uuid::Uuid;

use super::entities::{history, nodes, servers, shares};
use super::{Registry, RegistryTransaction};

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
    }
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
            let nothing = || ShareReport { server: server.name.clone(), grant: 0, at_most: 0, wanted: 0 };
            let report = said.cloned().unwrap_or_else(nothing);
            let is_settled = rows.get(&server.id).is_some_and(|row| {
                let mut heard = holding(row);
                heard.wanted = report.wanted;
                let is_same = !heard.hear(&report) && heard.grant == row.number.unsigned_abs();
                is_same && !row.is_leaving && !is_other_need(row, report.wanted)
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
        for row in rows.iter_mut().filter(|row| row.node_id == node && row.holder < holder && !row.is_leaving) {
            row.is_leaving = true;
            row.heard_at = now;
            write(&transaction, row).await?;
        }
        let at = rows.iter().position(|row| row.holder == holder);
        let heard = match at.map(|at| &rows[at]) {
            // It was taken to be gone, and is not.
            Some(row) if row.is_leaving => {
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
        let row = shares::Model {
            server_id: server,
            holder,
            node_id: node,
            share: signed(heard.share),
            // No node has more than all of it.
            held: signed(Ord::min(heard.held, Ord::max(budget, heard.share))),
            number: number(heard.grant),
            wanted: signed(heard.wanted),
            is_leaving: false,
            heard_at: now,
        };
        write(&transaction, &row).await?;
        match at {
            Some(at) => rows[at] = row,
            None => rows.push(row),
        }
        let is_changed = self.deal_rows(&transaction, budget, &mut rows, heard.is_unknown.then_some(holder)).await?;
        transaction.commit().await?;
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

    /// All processes of a node are gone, or are taken to be: what they have left ends with their sessions.
    pub(crate) async fn leave_shares(&self, transaction: &RegistryTransaction, node: Uuid) -> Result<(), DbErr> {
        let on = shares::Entity::find().filter(shares::Column::NodeId.eq(node)).all(transaction).await?;
        let servers: BTreeSet<Uuid> = on.into_iter().map(|row| row.server_id).collect();
        for server in servers {
            let Some((_, rows)) = lock_shares(transaction, server).await? else { continue };
            for row in rows.into_iter().filter(|row| row.node_id == node) {
                write(transaction, &shares::Model { is_leaving: true, heard_at: self.now(), ..row }).await?;
            }
        }
        Ok(())
    }

    /// Shares of processes that are gone, or whose nodes were not heard since this moment: such a node refuses all requests.
    pub(crate) async fn left_shares(&self, heard_before: DateTime<Utc>) -> Result<Vec<shares::Model>, DbErr> {
        let heard = Query::select()
            .column(nodes::Column::Id)
            .from(nodes::Entity)
            .and_where(nodes::Column::LastSeen.gte(heard_before))
            .to_owned();
        let is_left = shares::Column::IsLeaving.eq(true).or(shares::Column::NodeId.not_in_subquery(heard));
        shares::Entity::find().filter(is_left).all(self.db()).await
    }

    /// All shares of a server.
    pub(crate) async fn shares_on(&self, server: Uuid) -> Result<Vec<shares::Model>, DbErr> {
        let on_it = shares::Entity::find().filter(shares::Column::ServerId.eq(server));
        on_it.order_by_asc(shares::Column::NodeId).order_by_asc(shares::Column::Holder).all(self.db()).await
    }

    /// The server has shown how many sessions are left of a process that is gone: the rest of its share is dealt to others.
    pub(crate) async fn shrink_left_share(&self, left: &shares::Model, sessions: u32) -> Result<(), DbErr> {
        let transaction = self.begin().await?;
        let Some((budget, mut rows)) = lock_shares(&transaction, left.server_id).await? else { return Ok(()) };
        // Not if it was heard again since the server was looked at.
        let Some(at) = rows.iter().position(|row| row == left) else { return Ok(()) };
        if sessions == 0 {
            rows.remove(at);
            shares::Entity::delete_many()
                .filter(shares::Column::ServerId.eq(left.server_id))
                .filter(shares::Column::Holder.eq(left.holder))
                .exec(&transaction)
                .await?;
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

async fn write(transaction: &RegistryTransaction, row: &shares::Model) -> Result<(), DbErr> {
    let shares::Model { server_id, holder, node_id, share, held, number, wanted, is_leaving, heard_at } = row.clone();
    let again = OnConflict::columns([shares::Column::ServerId, shares::Column::Holder])
        .update_columns([
            shares::Column::Share,
            shares::Column::Held,
            shares::Column::Number,
            shares::Column::Wanted,
            shares::Column::IsLeaving,
            shares::Column::HeardAt,
        ])
        .to_owned();
    let row = shares::ActiveModel {
        server_id: Set(server_id),
        holder: Set(holder),
        node_id: Set(node_id),
        share: Set(share),
        held: Set(held),
        number: Set(number),
        wanted: Set(wanted),
        is_leaving: Set(is_leaving),
        heard_at: Set(heard_at),
    };
    shares::Entity::insert(row).on_conflict(again).exec_without_returning(transaction).await?;
    Ok(())
}
