//! What the schema of a version is on a server: read from a scratch database that was made at it, and kept for a while. Two
//! servers of one engine may word a definition differently, so each has its own.

use std::fmt;
use std::time::Duration;

use moka::future::Cache;
use tokio::time::timeout;
use uuid::Uuid;

use super::Lines;
use crate::engine::EngineError;
use crate::plane::Plane;
use crate::provision::{Scratch, StockError};
use crate::registry::entities::servers;

/// Schemas that are kept at most, and for how long: a server may be replaced by a newer one.
const MOST_KEPT: u64 = 256;
const KEPT_FOR: Duration = Duration::from_mins(10);
/// How long one may take to be made.
const MAKING: Duration = Duration::from_secs(10);

/// Schemas by server and version. Each is made once, however many ask for it.
pub(crate) struct Schemas(Cache<(Uuid, u32), Lines>);

impl Default for Schemas {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(MOST_KEPT).time_to_live(KEPT_FOR).build())
    }
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schemas").field("kept", &self.0.entry_count()).finish()
    }
}

/// The schema of the version on the server; in words why there is none.
pub(super) async fn of(plane: &Plane, server: &servers::Model, version: u32) -> Result<Lines, String> {
    let contained = plane.schema.migrations().len();
    if usize::try_from(version).unwrap_or(usize::MAX) > contained {
        return Err(format!(
            "its database has version {version}, and this control plane contains {contained} migrations: ask a newer one"
        ));
    }
    let late = |_| Err(StockError::Silent);
    let make = async { timeout(MAKING, make(plane, server, version)).await.unwrap_or_else(late) };
    let lines = plane.schemas.0.try_get_with((server.id, version), make).await;
    lines.map_err(|error| {
        format!("there is nothing to compare it with: no database of version {version} was made: {error}")
    })
}

async fn make(plane: &Plane, server: &servers::Model, version: u32) -> Result<Lines, StockError> {
    let scratch = Scratch::make(plane, server, version).await?;
    let read = async {
        let entered = plane.engine(server)?.enter(scratch.name()).await?;
        let lines = entered.schema().await;
        entered.leave().await?;
        lines
    };
    let read: Result<Vec<String>, EngineError> = read.await;
    scratch.end().await;
    Ok(read?.into())
}
