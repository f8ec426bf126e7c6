//! A server's connections: how many data planes may have, who has how many, and what is left to others.

use secrecy::SecretString;
use serde::Serialize;
use service::Problem;
use tenancy::share::{anchor_name, application_name};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::engine::EngineKind;
use crate::plane::Plane;
use crate::registry::CONNECTIONS;
use crate::registry::entities::{servers, shares};

/// Connections that control planes need at once: their admins' pool, and one for each operation and each target of a rollout
/// that is at work on the server.
const CONTROL: u32 = 8 + 8 + 8;
/// Connections that go on for a moment after their clients have left, for each that may be opened in a second.
const LAG_SECONDS: f64 = 0.02;
/// What a server is taken to allow that bounds its connections not: a file.
const UNBOUNDED: i32 = 1_000;

/// How a server's connections are used.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Connections {
    /// What all data planes together may have open.
    budget: i32,
    /// What is left to control planes.
    reserve: i32,
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

fn closing(connect_rate: u32) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small part of at most 10,000")]
    let closing = (f64::from(connect_rate) * LAG_SECONDS).ceil() as u32;
    closing
}

/// What data planes may have of a new server, and what is left to control planes.
pub(super) async fn learn(
    plane: &Plane,
    kind: EngineKind,
    admin_url: &SecretString,
    connect_rate: u32,
) -> Result<(i32, i32), Problem> {
    let engine = plane.engines.new_for(kind, admin_url).map_err(Problem::internal)?;
    let Some(limit) = engine.connections().await.map_err(Problem::internal)? else { return Ok((UNBOUNDED, 0)) };
    let registry = if plane.registry.is_on_server_of(admin_url) { CONNECTIONS } else { 0 };
    // A small server is shared by halves.
    let reserve = Ord::min(CONTROL + registry + closing(connect_rate), limit / 2);
    let signed = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    Ok((signed(limit - reserve).max(1), signed(reserve)))
}

/// How a server's connections are used now; none for files.
pub(super) async fn of(plane: &Plane, server: &servers::Model) -> Result<Option<Connections>, Problem> {
    if server.engine != EngineKind::Postgres.as_str() {
        return Ok(None);
    }
    let rows = plane.registry.shares_on(server.id).await?;
    let of_holder = |row: &shares::Model| [application_name(row.holder), anchor_name(row.holder)];
    let names: Vec<String> = rows.iter().flat_map(of_holder).collect();
    let looked = async {
        let engine = plane.engine(server)?;
        Ok::<_, crate::engine::EngineError>((engine.connections().await?, engine.sessions(&names).await?))
    };
    let (server_limit, sessions) = match looked.await {
        Ok((limit, sessions)) => (limit, Some(sessions)),
        Err(error) => {
            tracing::info!(server = server.name, %error, "could not look at a server's connections");
            (None, None)
        }
    };
    let shares = rows.into_iter().map(|row| {
        let counted = sessions
            .as_ref()
            .map(|sessions| of_holder(&row).map(|name| sessions.by_name.get(&name).copied().unwrap_or_default()));
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
    Ok(Some(Connections {
        budget: server.connection_budget,
        reserve: server.control_reserve,
        reserve_closing: closing(server.connect_rate.unsigned_abs()),
        server_limit,
        open: sessions.as_ref().map(|sessions| sessions.open),
        shares: shares.collect(),
    }))
}
