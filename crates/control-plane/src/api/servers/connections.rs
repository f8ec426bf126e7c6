//! A server's connections: how many data planes may have, who has how many, and what is left to others.

use secrecy::SecretString;
use serde::Serialize;
use service::Problem;
use tenancy::share::{anchor_name, application_name};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::engine::EngineKind;
use crate::plane::Plane;
use crate::registry::entities::servers;
use crate::shares::reserve::{closing, needed};
use crate::shares::standing::Standing;

/// The budget of files, which have no limit.
const UNBOUNDED: i32 = 1_000;

/// How a server's connections are used.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Connections {
    /// What all data planes together may have open.
    budget: i32,
    /// What is left to control planes.
    reserve: i32,
    /// What one control plane may need at once.
    reserve_needed: u32,
    /// The part of the reserve that is for sessions whose client has left and that the server still ends.
    reserve_closing: u32,
    /// What the server takes of others than superusers; none if it does not answer.
    server_limit: Option<u32>,
    /// Sessions there now, of all clients; none if it does not answer.
    open: Option<u32>,
    /// What each process of a data plane may have.
    shares: Vec<NodeShare>,
}

/// One process' share.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct NodeShare {
    node: Uuid,
    /// Connections that it may have open.
    share: i32,
    /// The most that it may still have open, while it gives some up.
    held: i32,
    /// Connections that it could use.
    wanted: i32,
    /// Sessions that it has there now, its anchor included; none if the server does not answer.
    open: Option<u32>,
    /// Its anchor session is there: while it is, the share stays its own; none if the server does not answer.
    is_anchored: Option<bool>,
    /// The process is gone, and its sessions end.
    is_leaving: bool,
}

/// The budget and the reserve of a new server. What was not given is learned from the server.
pub(super) async fn learn(
    plane: &Plane,
    kind: EngineKind,
    admin_url: &SecretString,
    (connect_rate, warm): (u32, u32),
    (budget, reserve): (Option<i32>, Option<i32>),
) -> Result<(i32, i32), Problem> {
    let engine = plane.engines.new_for(kind, admin_url).map_err(Problem::internal)?;
    let Some(limit) = engine.connections().await.map_err(Problem::internal)? else {
        return Ok((budget.unwrap_or(UNBOUNDED), reserve.unwrap_or(0)));
    };
    let signed = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    // Data planes have half of a small server.
    let reserve = reserve.unwrap_or_else(|| signed(Ord::min(needed(plane, admin_url, connect_rate, warm), limit / 2)));
    Ok((budget.unwrap_or_else(|| signed(limit).saturating_sub(reserve).max(1)), reserve))
}

/// How a server's connections are used now; none for files.
pub(super) async fn of(plane: &Plane, server: &servers::Model) -> Result<Option<Connections>, Problem> {
    if server.engine != EngineKind::Postgres.as_str() {
        return Ok(None);
    }
    let rows = plane.registry.shares_on(server.id).await?;
    let looked = async { Standing::of(plane.engine(server)?.as_ref(), server, &rows).await };
    let standing = looked.await.unwrap_or_else(|error| {
        tracing::info!(server = server.name, %error, "could not look at a server's connections");
        None
    });
    let shares = rows.into_iter().map(|row| {
        let names = [application_name(row.holder), anchor_name(row.holder)];
        let counted = standing
            .as_ref()
            .map(|standing| names.map(|name| standing.sessions.by_name.get(&name).copied().unwrap_or_default()));
        NodeShare {
            node: row.node_id,
            share: row.share,
            held: row.held,
            wanted: row.wanted,
            open: counted.map(|counted| counted.iter().sum()),
            is_anchored: counted.map(|[_, anchors]| anchors > 0),
            is_leaving: row.is_leaving,
        }
    });
    let (rate, warm) = (server.connect_rate.unsigned_abs(), server.warm_target.unsigned_abs());
    Ok(Some(Connections {
        budget: server.connection_budget,
        reserve: server.control_reserve,
        reserve_needed: plane.admin_url(server).map_or(0, |url| needed(plane, &url, rate, warm)),
        reserve_closing: closing(rate),
        server_limit: standing.as_ref().map(|standing| standing.limit),
        open: standing.as_ref().map(|standing| standing.sessions.open),
        shares: shares.collect(),
    }))
}
