//! How a server's sessions stand to its budget: whether others leave room for it, and whether it is enough for all data planes.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Gauge;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter};
use service::problem::BoxError;
use tenancy::share::{FLOOR, anchor_name, application_name};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::in_time;
use crate::engine::{Engine, EngineError, EngineKind, Sessions};
use crate::plane::Plane;
use crate::registry::entities::{servers, shares};

/// How often all servers are looked at.
const LOOK: Duration = Duration::from_mins(1);
/// Servers that are looked at together, fewer than the registry has connections.
const LOOKS_AT_ONCE: usize = 8;

/// A server's sessions at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    /// What the server takes of others than superusers.
    pub(crate) limit: u32,
    /// All that are there, and those of data planes by their names.
    pub(crate) sessions: Sessions,
    budget: u32,
}

impl Standing {
    /// Answers nothing for files, which have no limit.
    pub(crate) async fn of(
        engine: &dyn Engine,
        server: &servers::Model,
        shares: &[shares::Model],
    ) -> Result<Option<Self>, EngineError> {
        let Some(limit) = engine.connections().await? else { return Ok(None) };
        let names: Vec<String> =
            shares.iter().flat_map(|row| [application_name(row.holder), anchor_name(row.holder)]).collect();
        let sessions = engine.sessions(&names).await?;
        Ok(Some(Self { limit, sessions, budget: server.connection_budget.unsigned_abs() }))
    }

    fn own(&self) -> u32 {
        self.sessions.by_name.values().sum()
    }

    /// Sessions of others than data planes. Control planes are others.
    pub(crate) fn others(&self) -> u32 {
        self.sessions.open.saturating_sub(self.own())
    }

    /// Connections of the budget for which others leave no room.
    pub(crate) fn missing(&self) -> u32 {
        self.budget.saturating_sub(self.limit.saturating_sub(self.others()))
    }

    /// The server takes no more sessions, and data planes have fewer than their budget.
    pub(crate) fn is_full(&self) -> bool {
        self.sessions.open >= self.limit && self.own() < self.budget
    }
}

/// Data planes that got no connection, because the budget has fewer than all of them need at least.
fn without_share(budget: i32, shares: &[shares::Model]) -> usize {
    let staying = || shares.iter().filter(|row| !row.is_leaving);
    let least = staying().count() * FLOOR as usize;
    let is_too_small = usize::try_from(budget).is_ok_and(|budget| budget < least);
    if is_too_small { staying().filter(|row| row.share == 0).count() } else { 0 }
}

/// Tells by the log and by metrics where data planes lack connections, until told to stop.
pub(crate) async fn run(plane: Plane, stopping: CancellationToken) {
    let mut told = Told::default();
    loop {
        if let Err(error) = told.look(&plane).await {
            tracing::warn!(%error, "could not look whether servers have room for their budgets");
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Servers that were already told of: those where others leave no room, and those where data planes got no connection.
#[derive(Default)]
struct Told([HashSet<Uuid>; 2]);

impl Told {
    async fn look(&mut self, plane: &Plane) -> Result<(), DbErr> {
        let dealt = servers::Entity::find().filter(servers::Column::Engine.eq(EngineKind::Postgres.as_str()));
        let looks = dealt.all(plane.registry.db()).await?.into_iter().map(async |server| {
            let looked = look_at(plane, &server).await;
            (server, looked)
        });
        let mut looks = stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE);
        while let Some((server, looked)) = looks.next().await {
            match looked {
                Ok((without, standing)) => {
                    self.tell_of_nodes(&server, without);
                    self.tell_of_others(&server, standing.as_ref());
                }
                // The tasks that need the server log the failure.
                Err(error) => tracing::debug!(server = server.name, error, "could not look at a server's sessions"),
            }
        }
        Ok(())
    }

    fn tell_of_others(&mut self, server: &servers::Model, standing: Option<&Standing>) {
        let missing = standing.map_or(0, Standing::missing);
        let (limit, others) = standing.map_or((0, 0), |standing| (standing.limit, standing.others()));
        MISSING.record(missing.into(), &[KeyValue::new("server", server.name.clone())]);
        if is_news(&mut self.0[0], server.id, missing > 0) {
            tracing::warn!(
                server = server.name,
                limit,
                others,
                missing,
                "others use connections of the server that data planes may need: close some of theirs, or lower the server's \
                 connection_budget"
            );
        }
    }

    fn tell_of_nodes(&mut self, server: &servers::Model, without: usize) {
        WITHOUT.record(without as u64, &[KeyValue::new("server", server.name.clone())]);
        if is_news(&mut self.0[1], server.id, without > 0) {
            tracing::warn!(
                server = server.name,
                data_planes = without,
                "data planes have no connection to the server, and answer server-busy: raise its connection_budget, or run fewer"
            );
        }
    }
}

/// How many data planes have no share, and how the server's sessions stand to its budget; nothing where no data plane has any.
async fn look_at(plane: &Plane, server: &servers::Model) -> Result<(usize, Option<Standing>), BoxError> {
    let shares = plane.registry.shares_on(server.id).await?;
    let without = without_share(server.connection_budget, &shares);
    if shares.is_empty() {
        return Ok((without, None));
    }
    Ok((without, in_time(Standing::of(plane.engine(server)?.as_ref(), server, &shares)).await?))
}

/// Whether something is so that was not so when it was last looked.
fn is_news(told: &mut HashSet<Uuid>, server: Uuid, is_so: bool) -> bool {
    if is_so {
        return told.insert(server);
    }
    told.remove(&server);
    false
}

static MISSING: LazyLock<Gauge<u64>> = LazyLock::new(|| {
    opentelemetry::global::meter("control-plane")
        .u64_gauge("server_connections_missing")
        .with_description("Connections of the budget for which sessions of others leave no room, by server.")
        .build()
});

static WITHOUT: LazyLock<Gauge<u64>> = LazyLock::new(|| {
    opentelemetry::global::meter("control-plane")
        .u64_gauge("server_data_planes_without_share")
        .with_description("Data planes for which the budget has no connection, by server.")
        .build()
});

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(limit: u32, open: u32, own: u32, budget: u32) -> Standing {
        let by_name = [("ours".to_owned(), own)].into_iter().collect();
        Standing { limit, sessions: Sessions { by_name, open }, budget }
    }

    #[test]
    fn what_others_take_of_the_budget_is_missing() {
        assert_eq!(standing(97, 30, 2, 69).missing(), 0);
        assert_eq!(standing(97, 31, 2, 69).missing(), 1);
        assert_eq!(standing(97, 97, 69, 69).missing(), 0);
        assert_eq!(standing(97, 200, 0, 69).missing(), 69);
    }

    #[test]
    fn a_server_is_full_where_data_planes_get_fewer_than_they_may_have() {
        assert!(standing(97, 97, 68, 69).is_full());
        assert!(!standing(97, 96, 68, 69).is_full(), "there is one left");
        assert!(!standing(97, 97, 69, 69).is_full(), "they have all that they may have");
    }

    #[test]
    fn it_is_told_once_for_as_long_as_it_is_so() {
        let (mut told, server) = (HashSet::new(), Uuid::nil());
        let news = [true, true, false, false, true].map(|is_so| is_news(&mut told, server, is_so));
        assert_eq!(news, [true, false, false, false, true]);
    }
}
