//! Nodes that heard of more than the registry has.
//!
//! A node's word alone is a claim of any holder of the node token: the node is told to start again at the head, and nothing
//! else comes of it. No node begins an epoch. What a control plane itself told the node is evidence: the registry lost part
//! of its history, and no tenant is deleted until an operator has looked at it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use moka::ops::compute::Op;
use moka::sync::Cache;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge};
use sea_orm::sea_query::{Expr, Func};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, ExprTrait, QueryFilter};
use tenancy::audit::Chain;
use tenancy::feed::FeedAnswer;
use tenancy::id::NodeId;
use tenancy::route::{Epoch, Revision};
use uuid::Uuid;

use super::entities::{history, nodes};
use super::{Registry, position};
use crate::audit::{self, Deed};

/// Nodes of which a process remembers what it told them.
const MOST: u64 = 10_000;

/// What this process told nodes, whatever became of the registry since.
#[derive(Clone, Debug)]
pub(super) struct Told(Arc<Cache<NodeId, (Epoch, Revision)>>);

impl Default for Told {
    fn default() -> Self {
        Self(Arc::new(Cache::new(MOST)))
    }
}

impl Told {
    fn has(&self, node: NodeId, (epoch, revision): (Epoch, Revision)) -> bool {
        self.0.get(&node).is_some_and(|told| told.0 == epoch && told.1 >= revision)
    }

    fn note(&self, node: NodeId, told: (Epoch, Revision)) {
        self.0.entry(node).and_compute_with(|before| match before {
            Some(before) if before.value().0 == told.0 && before.value().1 >= told.1 => Op::Nop,
            _ => Op::Put(told),
        });
    }
}

/// Revisions that a node was given and the registry does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) node: Uuid,
}

impl Lost {
    /// As the registry says it.
    pub(crate) const fn of(row: &history::Model) -> Option<Self> {
        match (row.lost_from, row.lost_to, row.lost_node) {
            (Some(from), Some(to), Some(node)) => Some(Self { from, to, node }),
            _ => None,
        }
    }

    /// Tells it by the log and the metric, when it is another than was told before.
    pub(super) fn tell(now: Option<Self>, told: &mut Option<Self>) {
        static LOST: LazyLock<Gauge<u64>> = LazyLock::new(|| {
            opentelemetry::global::meter("control-plane")
                .u64_gauge("control_plane_history_lost")
                .with_description(
                    "1 while the registry lacks revisions that a node was given, and no tenant is deleted.",
                )
                .build()
        });
        LOST.record(u64::from(now.is_some()), &[]);
        if now == *told {
            return;
        }
        *told = now;
        if let Some(lost) = now {
            tracing::error!(from = lost.from, to = lost.to, node = %lost.node,
                "the registry has lost revisions that a node was given: it was restored from a backup. No tenant is deleted \
                 meanwhile. Stop the control planes and start one with --restored, or acknowledge it by POST /v1/epoch");
        }
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, node } = self;
        write!(f, "The registry has lost revisions {from} to {to} of its history: node {node} was given them")
    }
}

impl Registry {
    /// Remembers how far an answer takes a node, before the node hears it.
    pub(super) async fn remember(&self, node: NodeId, answer: &FeedAnswer) -> Result<(), DbErr> {
        let (epoch, revision) = (answer.epoch, answer.position.max(answer.head));
        if self.told.has(node, (epoch, revision)) {
            return Ok(());
        }
        let told = i64::try_from(revision.0).unwrap_or(i64::MAX);
        let is_other = nodes::Column::ToldEpoch.is_null().or(nodes::Column::ToldEpoch.ne(epoch.0));
        nodes::Entity::update_many()
            .col_expr(nodes::Column::Told, Expr::value(told))
            .col_expr(nodes::Column::ToldEpoch, Expr::value(epoch.0))
            .filter(nodes::Column::Id.eq(node.as_uuid()))
            .filter(is_other.or(nodes::Column::Told.lt(told)))
            .exec(self.db())
            .await?;
        self.told.note(node, (epoch, revision));
        Ok(())
    }

    /// Notes that a node says to have heard of a revision that the registry has not come to in this epoch.
    pub(super) async fn is_claimed(&self, node: NodeId, epoch: Epoch, claimed: Revision) -> Result<(), DbErr> {
        // Before the head: what a node was given by then, the registry had by then.
        let is_given = self.was_given(node, epoch, claimed).await?;
        let row = self.history().await?;
        let (now, head) = position(&row);
        if now != epoch || head >= claimed {
            return Ok(());
        }
        let evidence = if is_given { "given" } else { "claimed" };
        count(evidence);
        tracing::warn!(%node, claimed = claimed.0, head = head.0, evidence,
            "a node says that it heard of more than the registry has, and starts again at the head. If the registry was \
             restored from a backup, stop the control planes and start one with --restored");
        match i64::try_from(claimed.0) {
            Ok(claimed) if is_given && row.lost_to.is_none_or(|to| to < claimed) => {
                self.lose(node, epoch, claimed).await
            }
            _ => Ok(()),
        }
    }

    /// Whether a control plane told a node of this revision.
    async fn was_given(&self, node: NodeId, epoch: Epoch, revision: Revision) -> Result<bool, DbErr> {
        if self.told.has(node, (epoch, revision)) {
            return Ok(true);
        }
        let row = nodes::Entity::find_by_id(node.as_uuid()).one(self.db()).await?;
        Ok(row.is_some_and(|row| row.told_epoch == Some(epoch.0) && row.told.unsigned_abs() >= revision.0))
    }

    /// Writes down that the registry lacks what comes after its head up to `to`. Another epoch ends it.
    async fn lose(&self, node: NodeId, epoch: Epoch, to: i64) -> Result<(), DbErr> {
        let mut change = self.change().await?;
        // Before the history, as everybody locks them.
        audit::lock(change.db(), Chain::Platform).await?;
        let first = Expr::col(history::Column::Head).add(1);
        let lost = history::Entity::update_many()
            .col_expr(history::Column::LostFrom, Func::coalesce([Expr::col(history::Column::LostFrom), first]).into())
            .col_expr(history::Column::LostTo, Expr::value(to))
            .col_expr(history::Column::LostNode, Expr::value(node.as_uuid()))
            .filter(history::Column::Id.eq(1).and(history::Column::Epoch.eq(epoch.0)))
            .filter(history::Column::Head.lt(to))
            .filter(history::Column::LostTo.is_null().or(history::Column::LostTo.lt(to)))
            .exec_with_returning(change.db())
            .await?
            .pop();
        if let Some(lost) = lost.as_ref().and_then(Lost::of) {
            let subject = format!("revisions {} to {}", lost.from, lost.to);
            change.audit(Deed::on_platform("registry.history-lost", subject).after(&lost.node));
            change.commit().await?;
        }
        Ok(())
    }
}

fn count(evidence: &'static str) {
    static AHEAD: LazyLock<Counter<u64>> = LazyLock::new(|| {
        opentelemetry::global::meter("control-plane")
            .u64_counter("control_plane_feed_ahead")
            .with_description("Requests of nodes that say to have heard of more than the registry has, by evidence.")
            .build()
    });
    AHEAD.add(1, &[KeyValue::new("evidence", evidence)]);
}

#[cfg(test)]
mod tests;
