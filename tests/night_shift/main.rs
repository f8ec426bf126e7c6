//! A product for tests: the pet store's databases, with work that no request asked for, and answers that are streamed.

use std::convert::Infallible;
use std::process::ExitCode;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::routing::post;
use data_plane::{DataPlane, TenantSession};
use futures_util::stream::{self, StreamExt as _};
use sea_orm::ConnectionTrait as _;
use service::Problem;
use service::extract::Query;
use tenancy::{Product, TenantId};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Who the caller's tenant is.
#[utoipa::path(get, path = "/me", responses((status = 200)))]
async fn me(session: TenantSession) -> String {
    session.slug().to_string()
}

/// A line, and then nothing for as long as somebody listens. It holds no session.
#[utoipa::path(get, path = "/endless", responses((status = 200)))]
async fn endless(_: TenantSession) -> Body {
    let first = Ok::<_, Infallible>(Bytes::from_static(b"a line\n"));
    Body::from_stream(stream::iter([first]).chain(stream::pending()))
}

/// Two lines, one after the other. It holds no session.
#[utoipa::path(get, path = "/short", responses((status = 200)))]
async fn short(_: TenantSession) -> Body {
    Body::from_stream(stream::iter(["one\n", "two\n"].map(Ok::<_, Infallible>)))
}

/// How long a statement takes, and how long it may.
#[derive(serde::Deserialize)]
struct Sleep {
    millis: u32,
    /// None for what all have.
    within_millis: Option<u64>,
}

/// A statement that takes its time. On Postgres.
#[utoipa::path(get, path = "/sleep", responses((status = 200)))]
async fn sleep(session: TenantSession, Query(sleep): Query<Sleep>) -> Result<(), Problem> {
    let db = sleep.within_millis.map(Duration::from_millis);
    let db = db.map_or_else(|| session.db().clone(), |deadline| session.db().within(deadline));
    db.execute_unprepared(&format!("SELECT pg_sleep({}.0 / 1000)", sleep.millis)).await?;
    Ok(())
}

/// A job for a tenant: how much it reads of its database says whether it got one.
async fn work(
    State(plane): State<DataPlane>,
    Path((tenant, purpose)): Path<(TenantId, String)>,
) -> Result<String, Problem> {
    let session = plane.session_for(tenant, &purpose).await?;
    session.db().execute_unprepared("SELECT count(*) FROM pets").await?;
    Ok(format!("{} {}", session.slug(), session.principal().subject()))
}

fn main() -> ExitCode {
    service::run("night-shift", async |config: data_plane::Config, service| {
        let product = Product {
            name: "Night shift",
            mount: "/api",
            schema_version: 1,
            scopes: &["pets:read"],
            config_keys: Vec::new(),
        };
        let handlers = OpenApiRouter::new().routes(routes!(me)).routes(routes!(endless)).routes(routes!(short));
        let handlers = handlers.routes(routes!(sleep));
        let plane = data_plane::start(config, product, handlers, service).await?;
        // Whoever can reach this orders work: a test alone.
        let jobs = Router::new().route("/jobs/{tenant}/{purpose}", post(work)).with_state(plane.clone());
        Ok(jobs.fallback_service(plane))
    })
}
