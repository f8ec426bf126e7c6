//! Shares of processes that are gone: each server shows what is left of them, and the rest is dealt to others.
//!
//! A process counts as gone when it said goodbye, when another one runs with its node's folder, when an operator forgot the node,
//! or when it was not heard for so long that it refuses all requests. It opens nothing any more; its sessions end one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use sea_orm::EntityTrait as _;
use service::problem::BoxError;
use tenancy::share::application_name;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::plane::Plane;
use crate::registry::entities::{servers, shares};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(500);
/// How late what a node said may be heard.
const LATE: Duration = Duration::from_mins(2);
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(10);

/// Looks until told to stop.
pub(crate) async fn run(plane: Plane, stopping: CancellationToken) {
    let mut pause = LOOK;
    loop {
        match free(&plane).await {
            Ok(()) => pause = LOOK,
            Err(error) => {
                tracing::warn!(%error, "could not look at what is left of connections of data planes that are gone");
                pause = (pause * 2).min(LONGEST);
            }
        }
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Deals to others what processes that are gone have left.
async fn free(plane: &Plane) -> Result<(), BoxError> {
    let mut by_server: BTreeMap<Uuid, Vec<shares::Model>> = BTreeMap::new();
    let heard_before = plane.registry.now() - plane.stale_after - LATE;
    for left in plane.registry.left_shares(heard_before).await? {
        by_server.entry(left.server_id).or_default().push(left);
    }
    let mut failed = None;
    for (server, left) in by_server {
        // One that does not answer holds up no other.
        if let Err(error) = free_on(plane, server, left).await {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn free_on(plane: &Plane, server: Uuid, left: Vec<shares::Model>) -> Result<(), BoxError> {
    let Some(row) = servers::Entity::find_by_id(server).one(plane.registry.db()).await? else { return Ok(()) };
    let names: Vec<String> = left.iter().map(|left| application_name(left.holder)).collect();
    let sessions = plane.engine(&row)?.sessions(&names).await?;
    for (left, name) in left.iter().zip(names) {
        let sessions = sessions.by_name.get(&name).copied().unwrap_or_default();
        if sessions < left.held.unsigned_abs() || sessions == 0 {
            plane.registry.shrink_left_share(left, sessions).await?;
        }
    }
    Ok(())
}
