//! `/v1/servers`: where databases are placed. An admin URL goes in and never comes out.

mod connections;
mod fields;
mod moves;
pub(super) mod rotate;
pub(super) mod update;

use std::sync::Arc;

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use sea_orm::sea_query::LockType;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, ConnectionTrait, EntityTrait, PaginatorTrait, QueryFilter,
    QueryOrder, QuerySelect, SqlErr,
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::{Json, Path, Query};
use service::problem::ProblemBody;
use tenancy::seal::{Purpose, Subject};
use utoipa::ToSchema;
use uuid::Uuid;

use connections::Connections;
use fields::{amount, label, rate, warm};
use moves::Move;

use super::Api;
use super::auth::Operator;
use super::once::{Answer, Once};
use super::page::{Page, PageQuery, after, limit};
use crate::audit::Deed;
use crate::config::ServerConfig;
use crate::engine::{Engine, EngineError, EngineKind};
use crate::plane::Plane;
use crate::provision;
use crate::registry::change::Change;
use crate::registry::entities::{databases, servers};

/// A new server.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateServer {
    /// Its name: a lower-case letter, then letters, digits and hyphens.
    name: String,
    /// `postgres` or `sqlite`.
    engine: String,
    /// Where it is.
    region: String,
    /// `postgres://admin:password@host/postgres`, or `sqlite:///folder`.
    #[schema(value_type = String)]
    admin_url: SecretString,
    /// `host:port` by which data planes reach it, if not by that of the admin URL: a pooler's, or one in another network. A pooler
    /// must pool sessions. How it is encrypted may stand behind it (`?sslmode=disable`); by default as the admin URL says.
    data_address: Option<String>,
    /// Databases that it takes.
    capacity: u32,
    /// Connections that all data planes together may have open there; by default what the server takes, less what control
    /// planes need.
    connection_budget: Option<u32>,
    /// Connections that are left to control planes; by default what one needs, on a small server half of what it takes. More lets
    /// a rollout work on more databases there at once.
    reserve: Option<u32>,
    /// Connections that all data planes together open there in a second, 1 to 10000; by default 200.
    #[serde(default = "ServerConfig::connect_rate")]
    connect_rate: u32,
    /// Databases that are kept ready for tenants to come, 0 to 1000; by default 2.
    #[serde(default = "ServerConfig::warm")]
    warm: u32,
}

/// A server.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Server {
    id: Uuid,
    name: String,
    engine: String,
    region: String,
    /// `open` or `draining`.
    state: String,
    /// Where data planes reach it; none if where its admin does.
    data_address: Option<String>,
    capacity: i32,
    /// Connections that all data planes together may have open there.
    connection_budget: i32,
    /// Connections that are left to control planes.
    reserve: i32,
    /// Connections that all data planes together open there in a second.
    connect_rate: i32,
    /// Databases that are kept ready for tenants to come.
    warm: i32,
    created_at: DateTime<Utc>,
    /// Databases on it; only where one server is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    databases: Option<u64>,
    /// Databases that are ready now; only where one server is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<u64>,
    /// How its connections are used; only where one server that has a budget is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<Connections>,
    /// Its tenants' URLs follow it to another address; only where one server is shown or changed, until all of them have.
    #[serde(skip_serializing_if = "Option::is_none")]
    r#move: Option<Move>,
}

impl From<servers::Model> for Server {
    fn from(row: servers::Model) -> Self {
        Self {
            id: row.id,
            name: row.name,
            engine: row.engine,
            region: row.region,
            state: row.state,
            data_address: row.data_address,
            capacity: row.capacity,
            connection_budget: row.connection_budget,
            reserve: row.control_reserve,
            connect_rate: row.connect_rate,
            warm: row.warm_target,
            created_at: row.created_at,
            databases: None,
            ready: None,
            connections: None,
            r#move: None,
        }
    }
}

/// For whom a server's admin URL is sealed.
pub(crate) fn admin_url_subject(server: &servers::Model) -> Subject {
    Subject { purpose: Purpose::ServerAdminUrl, id: server.id, generation: server.generation.unsigned_abs() }
}

/// For whom the URL is sealed that takes over from it.
pub(crate) fn next_admin_url_subject(server: &servers::Model) -> Subject {
    Subject { generation: server.generation.unsigned_abs() + 1, ..admin_url_subject(server) }
}

/// Lists servers.
#[utoipa::path(
    get, path = "/v1/servers", tag = "servers", params(PageQuery), responses((status = 200, body = Page<Server>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Operator,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Server>>, Problem> {
    let limit = limit(page.limit)?;
    let mut select = servers::Entity::find();
    if let Some(after) = after::<String>(page.cursor.as_deref())? {
        select = select.filter(servers::Column::Name.gt(after));
    }
    let rows = select.order_by_asc(servers::Column::Name).limit(limit + 1).all(api.plane.registry.db()).await?;
    Ok(Json(Page::of(rows, limit, |row| row.name.clone(), Server::from)))
}

/// Registers a server, after a look whether it can be worked.
#[utoipa::path(
    post, path = "/v1/servers", tag = "servers", request_body = CreateServer,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Server), (status = 409, description = "The name is taken", body = ProblemBody),
              (status = 422, description = "It cannot be reached or worked, and what its admin lacks; or a field is not valid", body = ProblemBody),
              (status = 503, description = "The registry does not answer; repeat the call", body = ProblemBody))
)]
pub(super) async fn create(
    State(api): State<Api>,
    Once { body, mut ticket }: Once<CreateServer>,
) -> Result<Answer, Problem> {
    let plane = &api.plane;
    let wanted = ServerConfig {
        name: body.name,
        engine: body.engine,
        region: body.region,
        admin_url: body.admin_url,
        data_address: body.data_address,
        capacity: body.capacity,
        connection_budget: body.connection_budget,
        reserve: body.reserve,
        connect_rate: body.connect_rate,
        warm: body.warm,
    };
    let row = row(plane, wanted).await?;
    let mut change = plane.registry.change().await?;
    let made = Server::from(row.insert(change.db()).await.map_err(name_taken)?);
    change.audit(Deed::on_platform("server.created", made.name.as_str()).after(&made));
    let location = format!("/v1/servers/{}", made.name);
    let answer = Answer::new(StatusCode::CREATED, &made)?.at(location);
    ticket.record(&change, &answer).await?;
    change.commit().await?;
    Ok(answer)
}

fn name_taken(error: sea_orm::DbErr) -> Problem {
    match error.sql_err() {
        Some(SqlErr::UniqueConstraintViolation(_)) => {
            Problem::new(StatusCode::CONFLICT, "server-name-taken", "A server has this name already. Choose another.")
                .with_field("name", "is taken")
        }
        _ => error.into(),
    }
}

/// Registers a server of the configuration, unless one has its name.
pub(crate) async fn ensure(plane: &Plane, server: ServerConfig) -> Result<(), Problem> {
    let known = servers::Entity::find().filter(servers::Column::Name.eq(server.name.as_str()));
    if known.one(plane.registry.db()).await?.is_some() {
        return Ok(());
    }
    let row = row(plane, server).await?;
    let mut change = plane.registry.change().await?;
    match row.insert(change.db()).await.map_err(name_taken) {
        Ok(row) => {
            let made = Server::from(row);
            change.audit(Deed::on_platform("server.created", made.name.as_str()).after(&made));
            change.commit().await?;
            Ok(())
        }
        // Another replica was faster.
        Err(problem) if problem.status() == StatusCode::CONFLICT => Ok(()),
        Err(problem) => Err(problem),
    }
}

async fn row(plane: &Plane, wanted: ServerConfig) -> Result<servers::ActiveModel, Problem> {
    let name = label("name", &wanted.name)?;
    let region = label("region", &wanted.region)?;
    let kind: EngineKind =
        wanted.engine.parse().map_err(|_| Problem::invalid_field("engine", "is none of: postgres, sqlite"))?;
    let capacity = amount("capacity", wanted.capacity)?;
    let connection_budget = wanted.connection_budget.map(|budget| amount("connection_budget", budget)).transpose()?;
    let reserve = wanted.reserve.map(|reserve| amount("reserve", reserve)).transpose()?;
    let connect_rate = rate(wanted.connect_rate)?;
    let warm_target = warm(wanted.warm)?;
    let engine = plane.engines.new_at(kind, &wanted.admin_url, None, wanted.data_address.as_deref());
    check(plane, engine).await?;
    let given = (connection_budget, reserve);
    let (connection_budget, control_reserve) =
        connections::learn(plane, kind, &wanted.admin_url, (wanted.connect_rate, wanted.warm), given).await?;
    let id = Uuid::now_v7();
    let subject = Subject { purpose: Purpose::ServerAdminUrl, id, generation: 1 };
    let sealed = plane.servers_ring.seal(subject, &wanted.admin_url, &mut rand::rng());
    Ok(servers::ActiveModel {
        id: Set(id),
        name: Set(name),
        engine: Set(kind.as_str().to_owned()),
        region: Set(region),
        state: Set("open".to_owned()),
        capacity: Set(capacity),
        connection_budget: Set(connection_budget),
        sealed_admin_url: Set(sealed.as_stored().to_owned()),
        generation: Set(1),
        created_at: Set(plane.registry.now()),
        next_sealed_admin_url: Set(None),
        warm_target: Set(warm_target),
        placed: Set(0),
        connect_rate: Set(connect_rate),
        control_reserve: Set(control_reserve),
        address_number: Set(1),
        data_address: Set(wanted.data_address),
    })
}

/// Refuses a server that cannot be worked by this engine, and says what it or its pooler lacks.
async fn check(plane: &Plane, engine: Result<Arc<dyn Engine>, EngineError>) -> Result<Arc<dyn Engine>, Problem> {
    let engine = engine.map_err(unusable)?;
    engine.check().await.map_err(unusable)?;
    provision::try_way(plane, engine.as_ref()).await.map_err(|error| unusable_by("data_address", error))?;
    Ok(engine)
}

fn unusable(error: EngineError) -> Problem {
    unusable_by("admin_url", error)
}

fn unusable_by(field: &'static str, error: EngineError) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "server-unusable", format!("The server cannot be used: {error}."))
        .with_field(field, error.to_string())
        .with_source(error)
}

pub(super) async fn named(db: &impl ConnectionTrait, name: &str) -> Result<servers::Model, Problem> {
    found(servers::Entity::find().filter(servers::Column::Name.eq(name)).one(db).await?)
}

/// As [`named`], and nobody else changes it until the change ends.
async fn locked(change: &Change, name: &str) -> Result<servers::Model, Problem> {
    let row = servers::Entity::find().filter(servers::Column::Name.eq(name)).lock(LockType::Update);
    found(row.one(change.db()).await?)
}

fn found(row: Option<servers::Model>) -> Result<servers::Model, Problem> {
    row.ok_or_else(|| {
        Problem::new(StatusCode::NOT_FOUND, "server-not-found", "There is no such server. GET /v1/servers lists them.")
    })
}

/// Shows a server: its databases, those that are ready for tenants to come, and how its connections are used.
#[utoipa::path(
    get, path = "/v1/servers/{name}", tag = "servers", params(("name" = String, Path)),
    responses((status = 200, body = Server), (status = 404, body = ProblemBody))
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Operator,
    Path(name): Path<String>,
) -> Result<Json<Server>, Problem> {
    let row = named(api.plane.registry.db(), &name).await?;
    let on_it = databases::Entity::find().filter(databases::Column::ServerId.eq(row.id));
    let databases = Some(on_it.count(api.plane.registry.db()).await?);
    let ready = Some(provision::count_ready(&api.plane, row.id).await?);
    let connections = connections::of(&api.plane, &row).await?;
    let epoch = api.plane.registry.history().await?.epoch;
    let r#move = moves::of(api.plane.registry.db(), epoch, &row).await?;
    Ok(Json(Server { databases, ready, connections, r#move, ..row.into() }))
}
