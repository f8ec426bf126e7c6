//! What processes that are gone have left: each server shows it, and the rest is dealt to others.
//!
//! A process is gone when the server shows it: its anchor has ended, and none can begin, since its login role is dropped. A process
//! counts as gone, too, when another one runs with its node's folder, or when no anchor was made for it and it said goodbye
//! or was forgotten. Then its sessions only become fewer.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use sea_orm::{DbErr, EntityTrait as _};
use service::problem::BoxError;
use tenancy::feed::MAX_WAIT_SECONDS;
use tenancy::share::{anchor_name, application_name};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::tasks::Tasks;
use super::{Pause, in_time};
use crate::engine::{AnchorRole, Engine};
use crate::plane::Plane;
use crate::registry::Left;
use crate::registry::entities::servers;

/// A node that runs and reaches us is heard within this time: it waits no longer for news, and asks again at once.
const SILENT: Duration = Duration::from_secs(MAX_WAIT_SECONDS + 5);
/// How long the anchor of a silent node is gone before it is barred: the node may only be opening another.
const REOPENS: Duration = Duration::from_secs(2);
/// How long after its anchor was barred a node may still have a connection come about: it begins and goes on with a dial for a
/// second after the last sign of life of its anchor, and what it sent by then reaches the server a moment later.
const DIALS: Duration = Duration::from_secs(2);

/// What was seen of anchors that are gone on one server, by process and the anchor's number.
type Seen = HashMap<(Uuid, i64), Gone>;

/// What was seen on each server, and what is at work there. Another replica looks for itself.
#[derive(Default)]
struct Watched {
    seen: HashMap<Uuid, Seen>,
    tasks: Tasks<Seen>,
}

struct Gone {
    since: Instant,
    barred: Option<Instant>,
}

/// Deals to others what processes that are gone have left, until told to stop.
pub(crate) async fn run(plane: Plane, stopping: CancellationToken) {
    let (mut watched, mut pause) = (Watched::default(), Pause::of("left"));
    let mut next = Instant::now();
    loop {
        if Instant::now() >= next {
            let begun = watched.begin(&plane).await.inspect_err(|error| {
                tracing::warn!(%error, "could not look for data planes that are gone");
            });
            next = Instant::now() + pause.after(begun.is_ok());
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            Some((server, seen, freed)) = watched.tasks.next() => {
                watched.seen.extend(seen.map(|seen| (server, seen)));
                if let Err(error) = freed {
                    tracing::warn!(%server, error, "could not look at what is left of connections of data planes that are gone");
                }
            }
            () = tokio::time::sleep_until(next.into()) => {}
        }
    }
}

impl Watched {
    /// Begins to look at all servers where something is left.
    async fn begin(&mut self, plane: &Plane) -> Result<(), DbErr> {
        let mut by_server: BTreeMap<Uuid, Vec<Left>> = BTreeMap::new();
        for left in plane.registry.left_shares(plane.registry.now() - SILENT).await? {
            by_server.entry(left.share.server_id).or_default().push(left);
        }
        self.seen.retain(|server, _| by_server.contains_key(server));
        for (server, left) in by_server {
            if !self.tasks.is_due(server) {
                continue;
            }
            let (plane, mut seen) = (plane.clone(), self.seen.remove(&server).unwrap_or_default());
            seen.retain(|gone, _| left.iter().any(|left| (left.share.holder, left.share.anchor_number) == *gone));
            self.tasks.begin(server, async move {
                let freed = free_on(&plane, server, &left, &mut seen).await;
                (seen, freed)
            });
        }
        Ok(())
    }
}

async fn free_on(plane: &Plane, server: Uuid, left: &[Left], seen: &mut Seen) -> Result<(), BoxError> {
    let found = servers::Entity::find_by_id(server).one(plane.registry.db()).await?;
    let Some(server) = found else { return Ok(()) };
    let engine = plane.engine(&server)?;
    let names = left.iter().flat_map(|left| [application_name(left.share.holder), anchor_name(left.share.holder)]);
    let looked = Instant::now();
    let sessions = in_time(engine.sessions(&names.collect::<Vec<_>>())).await?;
    let count = |name: &str| sessions.by_name.get(name).copied().unwrap_or_default();
    let mut freed = Ok(());
    for left in left {
        let (holder, engine) = (left.share.holder, engine.as_ref());
        let shown = (looked, count(&application_name(holder)), count(&anchor_name(holder)));
        // One that fails holds up no other.
        freed = freed.and(free_one(plane, (&server.name, engine), left, shown, seen).await);
    }
    freed
}

async fn free_one(
    plane: &Plane,
    (server, engine): (&str, &dyn Engine),
    left: &Left,
    (looked, open, anchors): (Instant, u32, u32),
    seen: &mut Seen,
) -> Result<(), BoxError> {
    // It said goodbye, or was forgotten, before it could be told of an anchor: it opened nothing.
    let is_without = left.share.anchor_number == 0 && left.share.is_leaving && !left.share.is_fenced;
    if left.is_replaced || is_without {
        return shrink(plane, engine, left, open + anchors).await;
    }
    if !is_over(plane, engine, left, (looked, anchors > 0), seen).await? {
        return Ok(());
    }
    if open > 0 && left.heard_at + plane.ack_after <= plane.registry.now() {
        tracing::warn!(server, node = %left.share.node_id, sessions = open,
            "a silent data plane has lost its anchor and left sessions, which are ended now");
        in_time(engine.end_sessions_named(&application_name(left.share.holder))).await?;
    }
    shrink(plane, engine, left, open).await
}

/// Whether a process opened no connection there any more when it was looked: its anchor was gone and barred, for longer than a
/// dial goes on.
async fn is_over(
    plane: &Plane,
    engine: &dyn Engine,
    left: &Left,
    (looked, is_anchor_there): (Instant, bool),
    seen: &mut Seen,
) -> Result<bool, BoxError> {
    let share = &left.share;
    let key = (share.holder, share.anchor_number);
    if is_anchor_there {
        seen.remove(&key);
        return Ok(false);
    }
    let gone = seen.entry(key).or_insert_with(|| Gone { since: Instant::now(), barred: None });
    if !share.is_leaving {
        if gone.since.elapsed() >= REOPENS && plane.registry.fence_share(share).await? {
            tracing::info!(node = %share.node_id, server = %share.server_id,
                "a data plane is silent and its anchor is gone: what its sessions leave free is dealt to others");
        }
        return Ok(false);
    }
    let Some(barred) = gone.barred else {
        in_time(engine.bar_anchors(AnchorRole { holder: share.holder, number: share.anchor_number })).await?;
        gone.barred = Some(Instant::now());
        return Ok(false);
    };
    Ok(looked.saturating_duration_since(barred) >= DIALS)
}

/// Deals to others what is more than so many sessions need.
async fn shrink(plane: &Plane, engine: &dyn Engine, left: &Left, sessions: u32) -> Result<(), BoxError> {
    let share = &left.share;
    if sessions == 0 && share.anchor_number > 0 {
        in_time(engine.bar_anchors(AnchorRole { holder: share.holder, number: share.anchor_number })).await?;
    }
    if sessions < share.held.unsigned_abs() || sessions == 0 {
        plane.registry.shrink_left_share(share, sessions).await?;
    }
    Ok(())
}
