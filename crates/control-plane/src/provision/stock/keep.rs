//! The keeper: sees to it that each server has as many databases ready as it should. Any number of them may work on one
//! registry.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::kept::MOST;
use super::make::{Maker, StockError};
use super::{LEAVING, READY};
use crate::plane::Plane;
use crate::provision::admin::settle_admin;
use crate::provision::pace::Pace;
use crate::registry::entities::{servers, warm_databases};

/// How long one look is from the next when nothing was taken.
const SCAN: Duration = Duration::from_secs(5);
/// Longest that a server which fails is left alone.
const LONGEST: Duration = Duration::from_mins(1);

/// How a server did.
struct Trouble {
    times: u32,
    until: Instant,
}

/// Keeps the stock until told to stop. One server that fails holds no other up for long.
pub(crate) async fn keep(plane: Plane, stopping: CancellationToken) {
    let mut keeper = Keeper::new(plane.clone(), Pace::default());
    let mut pause = SCAN;
    while !stopping.is_cancelled() {
        tokio::select! {
            looked = keeper.look() => match looked {
                Ok(()) => pause = SCAN,
                Err(error) => {
                    tracing::warn!(%error, "could not look after the databases that are kept ready");
                    pause = (pause * 2).min(LONGEST);
                }
            },
            () = stopping.cancelled() => return,
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = plane.restock.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Looks after the stock of all servers.
pub(in crate::provision) struct Keeper {
    plane: Plane,
    pace: Pace,
    troubles: HashMap<Uuid, Trouble>,
    made: Counter<u64>,
    ready: Gauge<u64>,
}

impl Keeper {
    pub(in crate::provision) fn new(plane: Plane, pace: Pace) -> Self {
        let meter = opentelemetry::global::meter("control-plane");
        let made = meter
            .u64_counter("warm_databases_made")
            .with_description("Databases made ready, that failed to be, or were missing.");
        let ready = meter.u64_gauge("warm_databases").with_description("Databases ready for tenants, by server.");
        Self { plane, pace, troubles: HashMap::new(), made: made.build(), ready: ready.build() }
    }

    /// Brings every server's stock to what it should be, but for those that failed a moment ago.
    pub(in crate::provision) async fn look(&mut self) -> Result<(), DbErr> {
        let registry = &self.plane.registry;
        let version = registry.history().await?.schema_version;
        let all = servers::Entity::find().all(registry.db()).await?;
        self.troubles.retain(|server, _| all.iter().any(|known| known.id == *server));
        let ready: HashSet<String> = warm_databases::Entity::find()
            .select_only()
            .column(warm_databases::Column::Name)
            .filter(warm_databases::Column::State.eq(READY))
            .into_tuple()
            .all(registry.db())
            .await?
            .into_iter()
            .collect();
        self.plane.entered.retain(|name| ready.contains(name));
        for server in &all {
            if self.troubles.get(&server.id).is_some_and(|trouble| Instant::now() < trouble.until) {
                continue;
            }
            let kept = async {
                // A rotation of its admin that broke off is what is in everybody's way.
                let settled = match &server.next_sealed_admin_url {
                    Some(_) => Some(Box::pin(settle_admin(&self.plane, server)).await?),
                    None => None,
                };
                let server = settled.as_ref().unwrap_or(server);
                let maker = Maker { plane: &self.plane, server, version, pace: &self.pace };
                // Nobody may be placed there meanwhile, so that no operation finds out that it answers again.
                if self.plane.breakers.all().contains(&server.id) {
                    maker.in_time(self.plane.engine(server)?.answers()).await?;
                    self.plane.breakers.close(server.id);
                }
                self.stock(&maker).await
            };
            match Box::pin(kept).await {
                Ok(()) => {
                    self.troubles.remove(&server.id);
                }
                Err(StockError::Registry(error)) => return Err(error),
                Err(error) => {
                    self.made.add(1, &[KeyValue::new("outcome", "failed")]);
                    let trouble = self.troubles.entry(server.id).or_insert(Trouble { times: 0, until: Instant::now() });
                    trouble.times += 1;
                    let pause = Duration::from_secs(1).saturating_mul(1 << trouble.times.min(6)).min(LONGEST);
                    trouble.until = Instant::now() + pause;
                    tracing::warn!(server = server.name, %error, ?pause, "could not keep databases ready on a server");
                }
            }
        }
        Ok(())
    }

    async fn stock(&self, maker: &Maker<'_>) -> Result<(), StockError> {
        let target = maker.target();
        let mended = maker.mend().await?;
        if mended > 0 {
            self.made.add(mended, &[KeyValue::new("outcome", "missing")]);
        }
        let dropped = maker.drop_old(target == 0).await;
        let mut ready = count(maker).await?;
        if maker.is_open()
            && let Some(template) = maker.template().await?
        {
            while ready < target {
                maker.one(&template).await?;
                self.made.add(1, &[KeyValue::new("outcome", "made")]);
                ready = count(maker).await?;
            }
        }
        self.enter(maker).await?;
        self.ready.record(ready, &[KeyValue::new("server", maker.server.name.clone())]);
        dropped
    }
}

impl Keeper {
    /// Enters what is ready, the oldest first: they are claimed in that order.
    async fn enter(&self, maker: &Maker<'_>) -> Result<(), StockError> {
        let ready = warm_databases::Entity::find()
            .filter(warm_databases::Column::ServerId.eq(maker.server.id))
            .filter(warm_databases::Column::State.eq(READY))
            .order_by_asc(warm_databases::Column::CreatedAt)
            .limit(MOST as u64)
            .all(self.plane.registry.db())
            .await?;
        for row in ready {
            if self.plane.entered.is_full() {
                break;
            }
            if !self.plane.entered.has(&row.name) {
                maker.enter(&row.name).await?;
            }
        }
        Ok(())
    }
}

/// Those that are ready or being made, by whomever.
pub(super) async fn count(maker: &Maker<'_>) -> Result<u64, DbErr> {
    warm_databases::Entity::find()
        .filter(warm_databases::Column::ServerId.eq(maker.server.id))
        .filter(warm_databases::Column::SchemaVersion.eq(maker.version))
        .filter(warm_databases::Column::State.ne(LEAVING))
        .count(maker.plane.registry.db())
        .await
}
