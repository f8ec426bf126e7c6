//! `PATCH /v1/servers/{name}`: what changes of a server. One that moved takes its tenants' URLs along.

use axum::extract::State;
use http::StatusCode;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, IntoActiveModel};
use secrecy::SecretString;
use serde::Deserialize;
use service::Problem;
use service::extract::{Json, Path, present};
use service::problem::ProblemBody;
use tenancy::audit::Chain;
use tenancy::seal::Subject;
use utoipa::ToSchema;

use super::fields::{amount, rate, warm};
use super::{Server, admin_url_subject, check, locked, moves, named};
use crate::api::Api;
use crate::api::auth::Operator;
use crate::api::precondition::concurrent_change;
use crate::audit::{self, Deed};
use crate::engine::Engine;
use crate::plane::Plane;
use crate::registry::entities::servers;

/// What changes of a server.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateServer {
    /// `open`, or `draining`: it takes no new database.
    state: Option<String>,
    /// Databases that it takes.
    capacity: Option<u32>,
    /// Connections that all data planes together may have open there.
    connection_budget: Option<u32>,
    /// Connections that are left to control planes.
    reserve: Option<u32>,
    /// Connections that all data planes together open there in a second, 1 to 10000.
    connect_rate: Option<u32>,
    /// Databases that are kept ready for tenants to come, 0 to 1000.
    warm: Option<u32>,
    /// How its admin reaches it from now on, after a look whether it can be worked so. If it names another address, the server must
    /// have the tenants' databases there, and the URLs of all its tenants follow: `move` of the answer says how many.
    #[schema(value_type = Option<String>)]
    admin_url: Option<SecretString>,
    /// `host:port` by which data planes reach it from now on; null for that of the admin URL. Its tenants' URLs follow.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    #[allow(clippy::option_option, reason = "absent, null and a value are three things")]
    data_address: Option<Option<String>>,
}

/// Changes a server. Its tenants' URLs follow it to another address within seconds, with the passwords that they have.
#[utoipa::path(
    patch, path = "/v1/servers/{name}", tag = "servers", request_body = UpdateServer, params(("name" = String, Path)),
    responses((status = 200, body = Server), (status = 404, body = ProblemBody),
              (status = 409, description = "Its admin's password is being rotated, or work on it is held", body = ProblemBody),
              (status = 422, description = "It cannot be reached or worked, and what its admin lacks; it is another server than the one with the tenants' databases; or a field is not valid", body = ProblemBody),
              (status = 503, description = "The registry does not answer; repeat the call", body = ProblemBody))
)]
pub(crate) async fn update(
    State(api): State<Api>,
    operator: Operator,
    Path(name): Path<String>,
    Json(body): Json<UpdateServer>,
) -> Result<Json<Server>, Problem> {
    let plane = &api.plane;
    // Before anything is locked: it takes as long as the server does.
    let is_reached_anew = body.admin_url.is_some() || body.data_address.is_some();
    let reached = if is_reached_anew { Some(reach(plane, &name, &body).await?) } else { None };
    let mut change = plane.registry.change().await?;
    let row = locked(&change, &name).await?;
    let before = Server::from(row.clone());
    if body.admin_url.is_some() && row.next_sealed_admin_url.is_some() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "rotation-at-work",
            "The admin's password is being rotated, and this would forget the new one. That ends by itself once the server \
             answers, within seconds; POST /v1/servers/{name}/rotate-admin says what is in the way. Then set the URL.",
        ));
    }
    let has_other_url = body.admin_url.is_some();
    let is_moved = match &reached {
        Some(reached) => reached.is_moved_from(&row)?,
        None => false,
    };
    let is_budgeted = is_moved || body.connection_budget.is_some() || body.connect_rate.is_some();
    let generation = row.generation + 1;
    let subject = Subject { generation: generation.unsigned_abs(), ..admin_url_subject(&row) };
    let address_number = row.address_number;
    let mut row = row.into_active_model();
    if let Some(url) = body.admin_url {
        let sealed = plane.servers_ring.seal(subject, &url, &mut rand::rng());
        row.sealed_admin_url = Set(sealed.as_stored().to_owned());
        row.generation = Set(generation);
    }
    if let Some(address) = body.data_address {
        row.data_address = Set(address);
    }
    if is_moved {
        row.address_number = Set(address_number + 1);
    }
    if let Some(state) = body.state {
        if !matches!(state.as_str(), "open" | "draining") {
            return Err(Problem::invalid_field("state", "must be open or draining"));
        }
        row.state = Set(state);
    }
    if let Some(capacity) = body.capacity {
        row.capacity = Set(amount("capacity", capacity)?);
    }
    if let Some(budget) = body.connection_budget {
        row.connection_budget = Set(amount("connection_budget", budget)?);
    }
    if let Some(reserve) = body.reserve {
        row.control_reserve = Set(amount("reserve", reserve)?);
    }
    if let Some(number) = body.connect_rate {
        row.connect_rate = Set(rate(number)?);
    }
    if let Some(number) = body.warm {
        row.warm_target = Set(warm(number)?);
    }
    let row = row.update(change.db()).await?;
    if is_budgeted {
        // Before the history's row, as everywhere.
        audit::lock(change.db(), Chain::Platform).await?;
        if is_moved {
            // They are where it was.
            plane.registry.forget_anchors(change.db(), row.id).await?;
        }
        plane.registry.deal_again(change.db(), row.id).await?;
    }
    let r#move = if is_moved { moves::order(&change, &row, &operator).await? } else { None };
    let after = Server::from(row);
    let deed = Deed::on_platform("server.changed", after.name.as_str()).changed(&before, &after);
    // Never the URL itself: it holds a password.
    let mut details = Vec::new();
    if has_other_url {
        details.push("it is reached by another admin URL".to_owned());
    }
    if let Some(r#move) = &r#move {
        details.push(r#move.in_words());
    }
    change.audit(if details.is_empty() { deed } else { deed.detail(details.join("; ")) });
    change.commit().await?;
    if is_reached_anew {
        // It has just answered.
        plane.breakers.close(after.id);
    }
    if r#move.is_some() {
        plane.wake.ring();
    }
    if is_budgeted {
        plane.registry.announce_again();
    }
    plane.restock.notify_one();
    Ok(Json(Server { r#move, ..after }))
}

/// What was looked at of a server as it is reached from now on.
struct Reached {
    /// The row as it was.
    before: (i64, Option<String>),
    /// It was looked at whether it has the tenants' databases.
    is_compared: bool,
}

/// Looks whether a server can be worked as it is reached from now on; if tenants then reach it elsewhere, whether it is the server
/// with their databases.
async fn reach(plane: &Plane, name: &str, body: &UpdateServer) -> Result<Reached, Problem> {
    let row = named(plane.registry.db(), name).await?;
    let kind = row.engine.parse().map_err(Problem::internal)?;
    let data_address = body.data_address.as_ref().unwrap_or(&row.data_address).as_deref();
    let engine = match &body.admin_url {
        Some(url) => plane.engines.new_at(kind, url, None, data_address),
        None => plane.admin_url(&row).and_then(|url| {
            let next = plane.next_admin_url(&row)?;
            plane.engines.new_at(kind, &url, next.as_ref(), data_address)
        }),
    };
    let engine = check(plane, engine).await?;
    let is_compared = is_other_address(plane, &row, engine.as_ref());
    if is_compared {
        moves::check(plane, &row, engine.as_ref()).await?;
    }
    Ok(Reached { before: (row.generation, row.data_address), is_compared })
}

fn is_other_address(plane: &Plane, row: &servers::Model, engine: &dyn Engine) -> bool {
    let before = plane.engine(row);
    moves::is_other_address(before.as_deref(), engine, plane.registry.mark())
}

impl Reached {
    /// Whether tenants reach it at another address than by the row, which is locked.
    fn is_moved_from(&self, row: &servers::Model) -> Result<bool, Problem> {
        if self.before != (row.generation, row.data_address.clone()) {
            return Err(concurrent_change("server"));
        }
        Ok(self.is_compared)
    }
}
