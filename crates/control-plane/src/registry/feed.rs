//! The feed: the tenants ordered by revision, and the wait for news.
//!
//! A wake-up only says that there may be news; what there is, is always read.

use std::collections::BTreeSet;
use std::time::Duration;

use sea_orm::{ColumnTrait, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect, sea_query::Expr};
use tenancy::audit::Chain;
use tenancy::feed::{FeedAnswer, FeedItem, FeedRequest, MAX_ITEMS, MAX_WAIT_SECONDS};
use tenancy::route::Revision;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::entities::{history, tenants};
use super::lost::Lost;
use super::route::{Routed, routes};
use super::shares::are_other;
use super::{Registry, position};
use crate::audit::{self, Deed};
use crate::fleet;

/// How often the registry is asked for what other replicas wrote. A change reaches a node within this and one look.
const GLANCE: Duration = Duration::from_millis(50);

/// How often the registry's clock is looked at.
const CLOCKS_DRIFT: Duration = Duration::from_mins(1);

/// Whether there are more nodes, or fewer, than this one knows of. One that says nothing of it does not care.
fn is_other(request: &FeedRequest, answer: &FeedAnswer) -> bool {
    request.nodes != 0 && request.nodes != answer.nodes
}

impl Registry {
    /// Answers a node: at once if there is news, else when there is, or empty after the wait.
    pub(crate) async fn follow(
        &self,
        request: &FeedRequest,
        stale_after: Duration,
        stopping: &CancellationToken,
    ) -> Result<FeedAnswer, DbErr> {
        let answer = self.wait_for_news(request, stale_after, stopping).await?;
        self.remember(request.node, &answer).await?;
        Ok(answer)
    }

    async fn wait_for_news(
        &self,
        request: &FeedRequest,
        stale_after: Duration,
        stopping: &CancellationToken,
    ) -> Result<FeedAnswer, DbErr> {
        let deadline = Instant::now() + Duration::from_secs(Ord::min(request.wait, MAX_WAIT_SECONDS));
        let mut head = self.head();
        loop {
            head.mark_unchanged();
            let answer = self.news(request, stale_after).await?;
            let is_news = answer.reset
                || answer.position != request.after
                || is_other(request, &answer)
                || are_other(&request.shares, &answer.shares);
            if is_news || stopping.is_cancelled() {
                return Ok(answer);
            }
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => return Ok(answer),
                () = stopping.cancelled() => return Ok(answer),
                changed = head.changed() => if changed.is_err() { return Ok(answer) },
            }
        }
    }

    async fn news(&self, request: &FeedRequest, stale_after: Duration) -> Result<FeedAnswer, DbErr> {
        // The head first: whatever is read after it is at least as new.
        let history = self.history().await?;
        let (epoch, head) = position(&history);
        let nothing = FeedAnswer {
            shares: self.dealt_shares(request.holder, history.shares).await?,
            nodes: self.nodes_of_late().await?,
            canaries: fleet::canaries(self.db()).await?,
            ..FeedAnswer::without_news(epoch, head, stale_after.as_secs())
        };
        if request.epoch != Some(epoch) {
            return Ok(FeedAnswer { reset: true, ..nothing });
        }
        if request.newest() > head {
            self.is_claimed(request.node, epoch, request.newest()).await?;
            return Ok(FeedAnswer { reset: true, ..nothing });
        }
        if request.after == head {
            return Ok(nothing);
        }
        let after = i64::try_from(request.after.0).unwrap_or(i64::MAX);
        // This finds out how far a page reaches, and the next statement finds the routes. With a limit on that one Postgres would
        // read all tenants.
        let page: Vec<i64> = tenants::Entity::find()
            .select_only()
            .column(tenants::Column::Revision)
            .filter(tenants::Column::Revision.gt(after))
            .order_by_asc(tenants::Column::Revision)
            .limit(MAX_ITEMS + 1)
            .into_tuple()
            .all(self.db())
            .await?;
        let next = page.get(usize::try_from(MAX_ITEMS).unwrap_or(usize::MAX)).copied();
        let is_news = tenants::Column::Revision.gt(after);
        // A page that reaches the head has no end: one that changed once more since the page was measured belongs to it.
        let is_on_page = match next {
            Some(next) => is_news.and(tenants::Column::Revision.lt(next)),
            None => is_news,
        };
        let (_, changed) = routes(self.db(), is_on_page).await?;
        let (position, head) = match next.map(|next| Revision(next.unsigned_abs())) {
            // One that changed once more since is on a later page: the node has not all up to its position before that.
            Some(next) => (Revision(next.0 - 1), head.max(next)),
            None => (changed.last().map_or(head, |changed| head.max(changed.revision)), head),
        };
        let items = changed
            .into_iter()
            .map(|Routed { tenant, revision, route }| FeedItem { tenant: tenant.into(), revision, route })
            .collect();
        Ok(FeedAnswer { position, head, items, ..nothing })
    }

    /// Gives the history another identity, unless another replica just did. Answers the one in force. It acknowledges what was
    /// lost of the old history.
    pub(crate) async fn begin_epoch(&self, old: Uuid) -> Result<history::Model, DbErr> {
        let mut change = self.change().await?;
        // Before the history, as everybody locks them.
        audit::lock(change.db(), Chain::Platform).await?;
        let begun = history::Entity::update_many()
            .col_expr(history::Column::Epoch, Expr::value(Uuid::new_v4()))
            .col_expr(history::Column::LostFrom, Expr::value(None::<i64>))
            .col_expr(history::Column::LostTo, Expr::value(None::<i64>))
            .col_expr(history::Column::LostNode, Expr::value(None::<Uuid>))
            .filter(history::Column::Id.eq(1).and(history::Column::Epoch.eq(old)))
            .exec_with_returning(change.db())
            .await?
            .pop();
        if let Some(row) = &begun {
            change.audit(Deed::on_platform("registry.epoch-begun", "registry").before(&old).after(&row.epoch));
            change.commit().await?;
        } else {
            audit::changes_nothing();
        }
        let now = self.history().await?;
        // Who waits for news of the old one waits for nothing.
        self.announce_again();
        Ok(now)
    }

    /// Watches for what other replicas wrote, until told to stop. A head that went back is a restored registry.
    pub(crate) async fn watch(self, stopping: CancellationToken) {
        let mut known: Option<(Uuid, i64)> = None;
        let mut deals = 0;
        let mut told: Option<Lost> = None;
        // Identities that the history had before; one that comes back comes from a backup.
        let mut retired: BTreeSet<Uuid> = BTreeSet::new();
        let mut pause = GLANCE;
        let mut set = Instant::now();
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if set.elapsed() > CLOCKS_DRIFT {
                set = Instant::now();
                if let Err(error) = self.set_clock().await {
                    tracing::warn!(%error, "could not look at the registry's clock");
                }
            }
            match self.history().await {
                Ok(row) => {
                    pause = GLANCE;
                    Lost::tell(Lost::of(&row), &mut told);
                    let went_back = known.is_some_and(|(epoch, head)| epoch == row.epoch && head > row.head)
                        || retired.contains(&row.epoch);
                    retired.extend(known.map(|(epoch, _)| epoch).filter(|epoch| *epoch != row.epoch || went_back));
                    let (epoch, head) = (row.epoch, row.head);
                    if went_back && let Err(error) = self.begin_epoch(epoch).await {
                        tracing::warn!(%error, "could not give the restored registry another identity");
                        continue;
                    }
                    if known.is_some_and(|(before, _)| before != epoch)
                        || std::mem::replace(&mut deals, row.shares) != row.shares
                    {
                        self.announce_again();
                    }
                    known = Some((epoch, head));
                    self.announce(Revision(head.unsigned_abs()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the registry does not answer");
                    pause = (pause * 2).min(Duration::from_secs(5));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
