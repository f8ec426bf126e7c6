//! What a rollout's migrations do, seen on a scratch database for each version that is found in the fleet, before any tenant's
//! database is touched.

use std::collections::BTreeMap;
use std::time::Duration;

use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};
use service::Problem;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::order::{Order, plan};
use super::stored;
use crate::engine::{EngineError, EngineKind, Rehearsed};
use crate::plane::Plane;
use crate::provision::{Scratch, StockError};
use crate::registry::entities::{servers, tenants};

/// All rehearsals together: what is not begun or done in time says so.
const WHOLE: Duration = Duration::from_secs(20);
const NO_TIME: &str =
    "there was no time left in the 20 s of one plan: plan it for a tenant of this version alone (`select`)";

/// The pending migrations of one version, on one kind of server.
pub(crate) struct Rehearsal {
    /// The version that databases have now.
    pub(crate) version: u32,
    pub(crate) engine: EngineKind,
    /// Where it was rehearsed.
    pub(crate) server: String,
    pub(crate) migrations: Vec<Rehearsed>,
    /// Why it was not rehearsed. A migration that fails on an empty database fails on every other.
    pub(crate) error: Option<String>,
}

/// Rehearses what the order would apply; refuses what cannot be ordered. What is taken back is not rehearsed.
pub(crate) async fn rehearse(plane: &Plane, order: &Order) -> Result<Vec<Rehearsal>, Problem> {
    let planned = plan(plane, plane.registry.db(), order).await?;
    if order.is_down || planned.found.is_empty() {
        return Ok(Vec::new());
    }
    let until = Instant::now() + WHOLE;
    let mut rehearsals = Vec::new();
    for ((version, engine), server) in found(plane, order).await? {
        let rehearsed = if Instant::now() < until {
            timeout_at(until, one(plane, &server, version, order.version)).await.ok()
        } else {
            None
        };
        let (migrations, error) = match rehearsed {
            Some(Ok(migrations)) => (migrations, None),
            None => (Vec::new(), Some(NO_TIME.to_owned())),
            Some(Err(error)) => {
                let source = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(server = server.name, version, source, "migrations were not rehearsed: {error}");
                (Vec::new(), Some(error.to_string()))
            }
        };
        let engine = engine.parse().map_err(Problem::internal)?;
        rehearsals.push(Rehearsal { version, engine, server: server.name, migrations, error });
    }
    Ok(rehearsals)
}

/// One server for each version and engine that tenants to be changed have; one that takes tenants, if there is one.
async fn found(plane: &Plane, order: &Order) -> Result<BTreeMap<(u32, String), servers::Model>, Problem> {
    let db = plane.registry.db();
    let selected = order.selection.find(db, stored(order.version), order.is_down).await?;
    let rows: Vec<(i32, Option<Uuid>)> = selected
        .to_change()
        .select_only()
        .column(tenants::Column::SchemaVersion)
        .column(tenants::Column::ServerId)
        .distinct()
        .into_tuple()
        .all(db)
        .await?;
    let ids = rows.iter().filter_map(|(_, server)| *server);
    let servers: Result<_, DbErr> = servers::Entity::find().filter(servers::Column::Id.is_in(ids)).all(db).await;
    let servers: BTreeMap<Uuid, servers::Model> = servers?.into_iter().map(|row| (row.id, row)).collect();
    let mut found = BTreeMap::<(u32, String), servers::Model>::new();
    for (version, server) in rows {
        let Some(server) = server.and_then(|id| servers.get(&id)) else { continue };
        let kept = found.entry((version.unsigned_abs(), server.engine.clone())).or_insert_with(|| server.clone());
        if kept.state != "open" && server.state == "open" {
            *kept = server.clone();
        }
    }
    Ok(found)
}

async fn one(plane: &Plane, server: &servers::Model, from: u32, to: u32) -> Result<Vec<Rehearsed>, StockError> {
    let scratch = Scratch::make(plane, server, from).await?;
    let rehearsed = async {
        let entered = plane.engine(server)?.enter_aloud(scratch.name()).await?;
        let rehearsed = entered.rehearse(plane.schema.as_ref(), to).await;
        entered.leave().await?;
        rehearsed
    };
    let rehearsed: Result<Vec<Rehearsed>, EngineError> = rehearsed.await;
    scratch.end().await;
    Ok(rehearsed?)
}
