//! Makes the login roles of anchors: named and sealed in the registry first, then made on the server, then told to the node.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use sea_orm::{DbErr, EntityTrait as _};
use secrecy::{ExposeSecret as _, SecretString};
use service::problem::BoxError;
use tenancy::seal::Sealed;
use tenancy::share::Anchor;
use tokio_util::sync::CancellationToken;
use url::Url;
use uuid::Uuid;

use super::tasks::Tasks;
use super::{Pause, in_time};
use crate::engine::{AnchorRole, new_password};
use crate::plane::Plane;
use crate::registry::entities::{servers, shares};

/// How often it is looked whether those that were made are there.
const LOOK: Duration = Duration::from_mins(1);
/// Servers that are looked at together, fewer than the registry has connections.
const LOOKS_AT_ONCE: usize = 8;

/// The pause before the next look after anchors were made: other processes may have come meanwhile.
const SOON: Duration = Duration::from_millis(50);

/// Makes an anchor for each process that has none, until told to stop. Without it the process serves no tenant of the server. So a
/// newcomer waits neither for the next look nor for another server.
pub(crate) async fn run(plane: Plane, stopping: CancellationToken) {
    let (mut tasks, mut pause) = (Tasks::default(), Pause::of("anchors"));
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            let begun = begin(&mut tasks, &plane).await.inspect_err(|error| {
                tracing::warn!(%error, "could not look for data planes that have no anchor yet");
            });
            next = Instant::now() + pause.after(begun.is_ok());
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = plane.registry.newcomer() => next = Instant::now(),
            Some((server, _, made)) = tasks.next() => match made {
                Ok(()) => next = next.min(Instant::now() + SOON),
                Err(error) => tracing::warn!(%server, error,
                    "could not make the login role of a data plane's anchor, without which the data plane opens no connection to \
                     this server; it is tried again"),
            },
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}

/// Begins on all servers on which an anchor is missing.
async fn begin(tasks: &mut Tasks<()>, plane: &Plane) -> Result<(), DbErr> {
    for (server, shares) in by_server(plane.registry.shares_without_anchor().await?) {
        if !tasks.is_due(server) {
            continue;
        }
        let plane = plane.clone();
        tasks.begin(server, async move {
            let mut all = Ok(());
            for share in shares {
                // One that fails holds up no other.
                all = all.and(make(&plane, share).await);
            }
            ((), all)
        });
    }
    Ok(())
}

/// Checks from time to time that the anchors that were made still exist, until told to stop. A data plane whose anchor was dropped
/// would never open a connection again.
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

async fn look_at_all(plane: &Plane) -> Result<(), DbErr> {
    let looks = by_server(plane.registry.shares_with_anchor().await?).into_iter().map(async |(server, shares)| {
        if let Err(error) = look_at(plane, server, &shares).await {
            tracing::info!(%server, error, "could not look for the login roles of data planes' anchors");
        }
    });
    stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE).collect::<()>().await;
    Ok(())
}

async fn look_at(plane: &Plane, server: Uuid, shares: &[shares::Model]) -> Result<(), BoxError> {
    let missing = missing(plane, server, shares).await?;
    for share in shares.iter().filter(|share| missing.iter().any(|role| role.holder == share.holder)) {
        tracing::warn!(%server, node = %share.node_id,
            "the login role of a data plane's anchor is not there, and another is made");
        plane.registry.forget_anchor(share).await?;
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
    in_time(plane.engine(&server)?.missing_anchors(&roles.collect::<Vec<_>>())).await
}

async fn make(plane: &Plane, share: shares::Model) -> Result<(), BoxError> {
    let found = servers::Entity::find_by_id(share.server_id).one(plane.registry.db()).await?;
    let server = found.ok_or("the server is not registered any more")?;
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
    let url = match plane.tenants_ring.open(Anchor::subject(id), &Sealed::from_stored(sealed.as_str())) {
        Ok(url) => url,
        Err(error) => {
            // Another is named instead.
            plane.registry.forget_anchor(&share).await?;
            return Err(error.into());
        }
    };
    let role = role(share.anchor_number);
    in_time(engine.make_anchor(role, &password_of(&url)?)).await?;
    if !plane.registry.anchor_is_made(&share).await? {
        // The process is gone, or the role was barred: nobody was told of it.
        in_time(engine.bar_anchors(role)).await?;
    }
    Ok(())
}

fn password_of(url: &SecretString) -> Result<SecretString, BoxError> {
    // The parser's error would say it with the URL.
    let url = Url::parse(url.expose_secret()).map_err(|_| "the URL of an anchor is damaged")?;
    // Of letters that need no escape.
    Ok(url.password().unwrap_or_default().to_owned().into())
}
