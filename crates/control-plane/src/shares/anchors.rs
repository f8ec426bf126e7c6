//! Makes the login roles of anchors: named and sealed in the registry first, then made on the server, then told to the node.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use sea_orm::{DbErr, EntityTrait as _};
use secrecy::{ExposeSecret as _, SecretString};
use service::problem::BoxError;
use tenancy::seal::Sealed;
use tenancy::share::Anchor;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use super::{AT_ONCE, Pause, WITHIN};
use crate::engine::{AnchorRole, new_password};
use crate::plane::Plane;
use crate::registry::entities::{servers, shares};

/// The first pause after a server failed to make one, and the longest: a data plane that has just started opens nothing there
/// meanwhile.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// How often it is looked whether those that were made are there.
const LOOK: Duration = Duration::from_mins(1);

/// What makes anchors, and remembers what failed.
#[derive(Default)]
struct Makers {
    /// Servers that failed, until when they are left alone, and the pause.
    failed: HashMap<Uuid, (Instant, Duration)>,
    /// Servers on which anchors are being made, by the tasks that do so.
    at_work: HashMap<Id, Uuid>,
    making: JoinSet<Result<(), BoxError>>,
}

/// Makes the anchors of all processes that have none, until told to stop. A process can serve nobody on a server before it has its
/// anchor there: it does not wait for the next look, nor for another server.
pub(crate) async fn run(plane: Plane, stopping: CancellationToken) {
    let (mut makers, mut pause) = (Makers::default(), Pause::of("anchors"));
    loop {
        let begun = makers.begin(&plane).await.inspect_err(|error| {
            tracing::warn!(%error, "could not look for data planes that have no anchor yet");
        });
        tokio::select! {
            () = stopping.cancelled() => return,
            () = plane.registry.newcomer() => {}
            // Another may have come while it was at work.
            Some(ended) = makers.making.join_next_with_id() => makers.end(ended),
            () = tokio::time::sleep(pause.after(begun.is_ok())) => {}
        }
    }
}

/// Looks from time to time whether the anchors are there that were made, until told to stop. Without them, their data planes would
/// open nothing for ever.
pub(crate) async fn look(plane: Plane, stopping: CancellationToken) {
    loop {
        if let Err(error) = look_at_all(&plane).await {
            tracing::warn!(%error, "could not look for the login roles of data planes' anchors");
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

impl Makers {
    /// Begins on all servers on which an anchor is missing and nothing is at work.
    async fn begin(&mut self, plane: &Plane) -> Result<(), DbErr> {
        for (server, shares) in by_server(plane.registry.shares_without_anchor().await?) {
            let is_put_off = self.failed.get(&server).is_some_and(|(until, _)| Instant::now() < *until);
            if is_put_off || self.at_work.values().any(|at_work| *at_work == server) {
                continue;
            }
            let plane = plane.clone();
            let making = self.making.spawn(async move {
                let all = async {
                    for share in shares {
                        make(&plane, share).await?;
                    }
                    Ok(())
                };
                timeout(WITHIN, all).await.unwrap_or_else(|late| Err(late.into()))
            });
            self.at_work.insert(making.id(), server);
        }
        Ok(())
    }

    fn end(&mut self, ended: Result<(Id, Result<(), BoxError>), JoinError>) {
        let (task, made) = ended.unwrap_or_else(|panicked| (panicked.id(), Err(panicked.into())));
        let Some(server) = self.at_work.remove(&task) else { return };
        let Err(error) = made else {
            self.failed.remove(&server);
            return;
        };
        let pause = self.failed.get(&server).map_or(PAUSES.0, |(_, pause)| (*pause * 2).min(PAUSES.1));
        tracing::warn!(%server, error, ?pause,
            "could not make the login role of a data plane's anchor, without which the data plane opens no connection to this \
             server; it is tried again");
        self.failed.insert(server, (Instant::now() + pause, pause));
    }
}

async fn look_at_all(plane: &Plane) -> Result<(), DbErr> {
    let looks = by_server(plane.registry.shares_with_anchor().await?).into_iter().map(async |(server, shares)| {
        let missing = timeout(WITHIN, missing(plane, server, &shares)).await;
        (server, shares, missing.unwrap_or_else(|late| Err(late.into())))
    });
    let mut looks = stream::iter(looks).buffer_unordered(AT_ONCE);
    while let Some((server, shares, missing)) = looks.next().await {
        let missing = match missing {
            Ok(missing) => missing,
            Err(error) => {
                tracing::info!(%server, error, "could not look for the login roles of data planes' anchors");
                continue;
            }
        };
        for share in shares.iter().filter(|share| missing.iter().any(|role| role.holder == share.holder)) {
            tracing::warn!(%server, node = %share.node_id,
                "the login role of a data plane's anchor is not there, and another is made");
            plane.registry.forget_anchor(share).await?;
        }
    }
    Ok(())
}

fn by_server(shares: Vec<shares::Model>) -> BTreeMap<Uuid, Vec<shares::Model>> {
    let mut by_server: BTreeMap<Uuid, Vec<shares::Model>> = BTreeMap::new();
    for share in shares {
        by_server.entry(share.server_id).or_default().push(share);
    }
    by_server
}

async fn missing(plane: &Plane, server: Uuid, shares: &[shares::Model]) -> Result<Vec<AnchorRole>, BoxError> {
    let found = servers::Entity::find_by_id(server).one(plane.registry.db()).await?;
    let Some(server) = found else { return Ok(Vec::new()) };
    let roles = shares.iter().map(|share| AnchorRole { holder: share.holder, number: share.anchor_number });
    Ok(plane.engine(&server)?.missing_anchors(&roles.collect::<Vec<_>>()).await?)
}

async fn make(plane: &Plane, share: shares::Model) -> Result<(), BoxError> {
    let found = servers::Entity::find_by_id(share.server_id).one(plane.registry.db()).await?;
    let Some(server) = found else { return Ok(()) };
    let engine = plane.engine(&server)?;
    let holder = share.holder;
    let role = |number| AnchorRole { holder, number };
    let share = if share.anchor.is_some() {
        share
    } else {
        let (id, number) = (Uuid::new_v4(), plane.registry.next_anchor_number(&share));
        let Some(url) = engine.anchor_url(role(number), &new_password(&mut rand::rng())) else { return Ok(()) };
        let sealed = plane.tenants_ring.seal(Anchor::subject(id), &url, &mut rand::rng());
        let Some(named) = plane.registry.name_anchor(&share, (id, number), &sealed).await? else { return Ok(()) };
        named
    };
    let (Some(id), Some(sealed)) = (share.anchor, &share.sealed_anchor) else { return Ok(()) };
    let url = plane.tenants_ring.open(Anchor::subject(id), &Sealed::from_stored(sealed.as_str()))?;
    let role = role(share.anchor_number);
    engine.make_anchor(role, &password_of(&url)?).await?;
    if !plane.registry.anchor_is_made(&share).await? {
        // The process is gone, or the role was barred: nobody was told of it.
        engine.bar_anchors(role).await?;
    }
    Ok(())
}

fn password_of(url: &SecretString) -> Result<SecretString, BoxError> {
    // The parser's error would say it with the URL.
    let url = Url::parse(url.expose_secret()).map_err(|_| "the URL of an anchor is damaged")?;
    // Of letters that need no escape.
    Ok(url.password().unwrap_or_default().to_owned().into())
}
