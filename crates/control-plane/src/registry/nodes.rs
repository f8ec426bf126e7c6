//! Which data planes run, and what each has applied.

use std::sync::atomic::Ordering;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
};
use tenancy::feed::FeedRequest;
use tenancy::id::NodeId;
use tenancy::route::Revision;
use uuid::Uuid;

use super::change::Change;
use super::entities::nodes;
use super::{Registry, position};

/// Nodes that are named as behind, at most.
const MOST_BEHIND: u64 = 1_000;
const OF_LATE: TimeDelta = TimeDelta::minutes(1);

impl Registry {
    /// Notes that a node was heard, and what it said to have applied.
    pub(crate) async fn heard(&self, request: &FeedRequest, now: DateTime<Utc>) -> Result<(), DbErr> {
        let (epoch, head) = position(&self.history().await?);
        // What it applied of another history, or of a lost part of this one, says nothing of this one.
        let is_followed = request.epoch == Some(epoch) && request.newest() <= head;
        let applied = if is_followed { i64::try_from(request.applied.0).unwrap_or(i64::MAX) } else { 0 };
        let row = nodes::ActiveModel {
            id: Set(request.node.as_uuid()),
            applied: Set(applied),
            first_seen: Set(now),
            last_seen: Set(now),
            told: Set(0),
            told_epoch: Set(None),
        };
        let again = OnConflict::column(nodes::Column::Id)
            .update_columns([nodes::Column::Applied, nodes::Column::LastSeen])
            .to_owned();
        nodes::Entity::insert(row).on_conflict(again).exec_without_returning(self.db()).await?;
        Ok(())
    }

    /// How many nodes were heard in the last minute: a node that runs is heard every half of it.
    pub(crate) async fn nodes_of_late(&self) -> Result<u32, DbErr> {
        let since = self.now() - OF_LATE;
        let nodes = nodes::Entity::find().filter(nodes::Column::LastSeen.gte(since)).count(self.db()).await?;
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
        if self.nodes.swap(nodes, Ordering::Relaxed) != nodes {
            // Each node keeps to a share: it must hear that there are more.
            self.announce_again();
        }
        Ok(nodes)
    }

    /// Nodes that still count, and may serve or dial something older than this revision.
    pub(crate) async fn nodes_behind(
        &self,
        revision: Revision,
        alive_since: DateTime<Utc>,
    ) -> Result<Vec<Uuid>, DbErr> {
        let wanted = i64::try_from(revision.0).unwrap_or(i64::MAX);
        nodes::Entity::find()
            .select_only()
            .column(nodes::Column::Id)
            .filter(nodes::Column::LastSeen.gte(alive_since))
            .filter(nodes::Column::Applied.lt(wanted))
            .order_by_asc(nodes::Column::Id)
            .limit(MOST_BEHIND)
            .into_tuple()
            .all(self.db())
            .await
    }

    /// All nodes, the oldest first, after this id.
    pub(crate) async fn nodes(&self, after: Option<NodeId>, limit: u64) -> Result<Vec<nodes::Model>, DbErr> {
        let mut query = nodes::Entity::find().order_by_asc(nodes::Column::Id).limit(limit);
        if let Some(after) = after {
            query = query.filter(nodes::Column::Id.gt(after.as_uuid()));
        }
        query.all(self.db()).await
    }

    /// Deletes what is known of a node, and answers it. Nothing waits for the node after the commit. Unless `has_ended`, it may still
    /// run.
    pub(crate) async fn forget(
        &self,
        change: &Change,
        node: NodeId,
        has_ended: bool,
    ) -> Result<Option<nodes::Model>, DbErr> {
        self.leave_shares(change.db(), node.as_uuid(), has_ended).await?;
        let gone = nodes::Entity::delete_many().filter(nodes::Column::Id.eq(node.as_uuid()));
        Ok(gone.exec_with_returning(change.db()).await?.pop())
    }
}
