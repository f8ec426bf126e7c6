//! Makes the login roles of anchors: named and sealed in the registry first, then made on the server, then told to the node.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use sea_orm::{DbErr, EntityTrait as _};
use secrecy::{ExposeSecret as _, SecretString};
use service::problem::BoxError;
use tenancy::seal::Sealed;
use tenancy::share::Anchor;
use url::Url;
use uuid::Uuid;

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
pub(super) struct Makers {
    /// Servers that failed, until when they are left alone, and the pause.
    failed: HashMap<Uuid, (Instant, Duration)>,
    looked: Option<Instant>,
}

impl Makers {
    /// Makes the anchors of all processes that have none.
    pub(super) async fn make(&mut self, plane: &Plane) -> Result<(), DbErr> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            look(plane).await?;
        }
        for share in plane.registry.shares_without_anchor().await? {
            let server = share.server_id;
            let before = self.failed.get(&server).copied();
            if before.is_some_and(|(until, _)| Instant::now() < until) {
                continue;
            }
            match make(plane, share).await {
                Ok(()) => {
                    self.failed.remove(&server);
                }
                Err(error) => {
                    let pause = before.map_or(PAUSES.0, |(_, pause)| (pause * 2).min(PAUSES.1));
                    tracing::warn!(%server, error, ?pause,
                        "could not make the login role of a data plane's anchor, without which the data plane opens no \
                         connection to this server; it is tried again");
                    self.failed.insert(server, (Instant::now() + pause, pause));
                }
            }
        }
        Ok(())
    }
}

/// Looks for anchors that were made and are not there: without this, their data planes would open nothing for ever.
async fn look(plane: &Plane) -> Result<(), DbErr> {
    let mut by_server: BTreeMap<Uuid, Vec<shares::Model>> = BTreeMap::new();
    for share in plane.registry.shares_with_anchor().await? {
        by_server.entry(share.server_id).or_default().push(share);
    }
    for (server, shares) in by_server {
        let missing = match missing(plane, server, &shares).await {
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
