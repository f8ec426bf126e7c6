//! The yardstick: the pet store's list on plain axum and SeaORM, with one database or one for each tenant, each with a pool,
//! the data plane's pool settings and its allocator, and nothing around it; told to, inside of the edge that every
//! service of the house has.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program of the house that speaks to its caller, and may end with a panic"
)]

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::serve::ListenerExt as _;
use axum::{Json, Router, ServiceExt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sea_orm::{
    ColumnTrait, ConnectOptions, Database, DatabaseConnection, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use serde::{Deserialize, Serialize};
use service::config::TelemetryConfig;
use service::layers::{EdgeConfig, ProxiesConfig, edge, name_endpoints};
use service::telemetry::Telemetry;
use tokio::net::TcpListener;
use uuid::Uuid;

/// As in the pet store.
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "pets")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub name: String,
        pub species: String,
        pub breed: Option<String>,
        pub created_at: DateTimeUtc,
        pub deleted_at: Option<DateTimeUtc>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PetsQuery {
    species: Option<String>,
    limit: Option<u64>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct Pet {
    id: Uuid,
    name: String,
    species: String,
    breed: Option<String>,
    created_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
struct Pets {
    items: Vec<Pet>,
    next_cursor: Option<String>,
}

/// One pool for each database.
type Pools = Arc<[DatabaseConnection]>;

async fn list(
    State(pools): State<Pools>,
    headers: HeaderMap,
    Query(query): Query<PetsQuery>,
) -> Result<Json<Pets>, StatusCode> {
    let tenant = headers.get("x-tenant").and_then(|tenant| tenant.to_str().ok()?.parse().ok()).unwrap_or(0_usize);
    let db = pools.get(tenant).ok_or(StatusCode::NOT_FOUND)?;
    let limit = query.limit.unwrap_or(20);
    if !(1..=100).contains(&limit) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let mut pets = entity::Entity::find().order_by_asc(entity::Column::Id).limit(limit + 1);
    if let Some(cursor) = query.cursor {
        let id = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| Uuid::from_slice(&bytes).ok());
        pets = pets.filter(entity::Column::Id.gt(id.ok_or(StatusCode::BAD_REQUEST)?));
    }
    if let Some(species) = query.species {
        pets = pets.filter(entity::Column::Species.eq(species));
    }
    pets = pets.filter(entity::Column::DeletedAt.is_null());
    let mut rows = pets.all(db).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let has_more = rows.len() as u64 > limit;
    rows.truncate(usize::try_from(limit).unwrap());
    let next_cursor = rows.last().filter(|_| has_more).map(|last| URL_SAFE_NO_PAD.encode(last.id.as_bytes()));
    let items = rows.into_iter().map(|row| Pet {
        id: row.id,
        name: row.name,
        species: row.species,
        breed: row.breed,
        created_at: row.created_at,
        deleted_at: row.deleted_at,
    });
    Ok(Json(Pets { items: items.collect(), next_cursor }))
}

/// As in the pet store, so that it makes no difference.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A pool of so many connections, which opens none before it is used.
async fn pool(url: &str, connections: u32, idle: Option<Duration>) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .min_connections(0)
        .connect_lazy(true)
        .acquire_timeout(Duration::from_secs(3))
        .sqlx_logging(false)
        .test_before_acquire(false)
        .test_before_acquire_if_idle_for(Duration::from_secs(5));
    let Some(idle) = idle else { return service::pool::open(options).await.unwrap() };
    options.idle_timeout(idle);
    #[allow(
        clippy::disallowed_methods,
        reason = "the baseline is what a product would do: the driver closes idle connections"
    )]
    Database::connect(options).await.unwrap()
}

/// Serves the databases of the file `PLAIN_PETS_URLS`, one a line, and says on its first line where. The header `x-tenant` tells
/// which, by its number; without it it is the first.
#[tokio::main]
async fn main() {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u32>().unwrap());
    let connections = number("PLAIN_PETS_CONNECTIONS").unwrap();
    let idle = number("PLAIN_PETS_IDLE_MS").map(|idle| Duration::from_millis(idle.into()));
    let urls = std::fs::read_to_string(std::env::var("PLAIN_PETS_URLS").unwrap()).unwrap();
    let mut pools = Vec::new();
    for url in urls.lines() {
        pools.push(pool(url, connections, idle).await);
    }
    let router = Router::new().route("/api/pets", get(list)).with_state(Pools::from(pools));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("http://{}", listener.local_addr().unwrap());
    let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
    if std::env::var_os("PLAIN_PETS_EDGE").is_none() {
        return axum::serve(listener, router).await.unwrap();
    }
    let telemetry = Telemetry::start("plain-pets", &TelemetryConfig::default()).unwrap();
    let api = edge(
        name_endpoints(router),
        EdgeConfig { telemetry, timeout: Duration::from_secs(30), proxies: ProxiesConfig::default() },
    );
    axum::serve(listener, ServiceExt::<Request>::into_make_service(api)).await.unwrap();
}
