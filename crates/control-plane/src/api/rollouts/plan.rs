//! What a rollout would do, and where the fleet is.

use std::collections::BTreeMap;

use axum::extract::State;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QuerySelect};
use serde::Serialize;
use service::Problem;
use service::extract::Json;
use service::problem::ProblemBody;
use utoipa::ToSchema;

use super::start::NewRollout;
use crate::api::Api;
use crate::api::auth::Operator;
use crate::audit::changes_nothing;
use crate::fleet;
use crate::registry::entities::tenants;

/// Tenants that have one version.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Found {
    /// The version that their databases have.
    version: u32,
    tenants: u64,
    /// The migrations that would be applied to each, or taken back, in this order.
    migrations: Vec<String>,
}

/// One wave that would be.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlannedWave {
    /// `canary` or `wave`.
    kind: String,
    size: u64,
}

/// What a rollout would do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Plan {
    /// The version that databases would get.
    version: u32,
    down: bool,
    /// Tenants that have it already.
    already: u64,
    /// Those that do not, by the version that they have.
    found: Vec<Found>,
    waves: Vec<PlannedWave>,
}

/// Says what a rollout would do. Nothing is changed.
#[utoipa::path(
    post, path = "/v1/rollouts/plan", tag = "fleet", request_body = NewRollout,
    responses((status = 200, body = Plan), (status = 409, body = ProblemBody), (status = 422, body = ProblemBody))
)]
pub(crate) async fn plan(
    State(api): State<Api>,
    _: Operator,
    Json(body): Json<NewRollout>,
) -> Result<Json<Plan>, Problem> {
    changes_nothing();
    let plane = &api.plane;
    let order = body.order(plane);
    let planned = fleet::plan(plane, plane.registry.db(), &order).await?;
    let names: Vec<String> = plane.schema.migrations().iter().map(|it| it.name().to_owned()).collect();
    let between = |from: u32, to: u32| -> Vec<String> {
        let (low, high) = (from.min(to) as usize, from.max(to) as usize);
        let mut some = names.get(low..high.min(names.len())).unwrap_or_default().to_vec();
        if from > to {
            some.reverse();
        }
        some
    };
    let found = planned.found.into_iter().map(|(version, tenants)| Found {
        version,
        tenants,
        migrations: between(version, order.version),
    });
    let waves = planned.waves.into_iter().map(|(kind, size)| PlannedWave { kind: kind.to_owned(), size });
    Ok(Json(Plan {
        version: order.version,
        down: order.is_down,
        already: planned.already,
        found: found.collect(),
        waves: waves.collect(),
    }))
}

/// Where the fleet is.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Fleet {
    /// What new tenants get.
    version: u32,
    /// What the product needs at least: a tenant behind it is not served.
    needed: u32,
    /// The migrations that this control plane contains, in their order: the first brings a database to version 1.
    migrations: Vec<String>,
    /// How many tenants have each version.
    tenants: BTreeMap<u32, u64>,
}

/// Says which schema versions the fleet's databases have.
#[utoipa::path(get, path = "/v1/fleet", tag = "fleet", responses((status = 200, body = Fleet)))]
pub(crate) async fn fleet(State(api): State<Api>, _: Operator) -> Result<Json<Fleet>, Problem> {
    let plane = &api.plane;
    let rows: Vec<(i32, i64)> = tenants::Entity::find()
        .select_only()
        .column(tenants::Column::SchemaVersion)
        .column_as(tenants::Column::Id.count(), "tenants")
        .filter(tenants::Column::Status.is_in(fleet::statuses()))
        .group_by(tenants::Column::SchemaVersion)
        .into_tuple()
        .all(plane.registry.db())
        .await?;
    Ok(Json(Fleet {
        version: plane.registry.history().await?.schema_version.unsigned_abs(),
        needed: plane.product.schema_version,
        migrations: plane.schema.migrations().iter().map(|it| it.name().to_owned()).collect(),
        tenants: rows.into_iter().map(|(version, tenants)| (version.unsigned_abs(), tenants.unsigned_abs())).collect(),
    }))
}
