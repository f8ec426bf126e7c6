//! `POST /v1/servers/{name}/rotate-admin`: another password for a server's admin, which nobody but the control plane knows.

use axum::extract::State;
use http::StatusCode;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, IntoActiveModel};
use service::Problem;
use service::extract::{Json, Path};
use service::problem::ProblemBody;

use super::{Server, locked, next_admin_url_subject};
use crate::api::Api;
use crate::api::auth::Operator;
use crate::audit::Deed;
use crate::engine::{EngineError, new_password};
use crate::provision::{self, StockError};

/// Gives the server's admin another password. A call that broke off is gone on with by itself, or by the next.
#[utoipa::path(
    post, path = "/v1/servers/{name}/rotate-admin", tag = "servers", params(("name" = String, Path)),
    responses((status = 200, body = Server), (status = 404, body = ProblemBody),
              (status = 409, description = "It has no credentials, or the registry uses the same", body = ProblemBody),
              (status = 503, description = "The server does not answer; repeat the call", body = ProblemBody))
)]
pub(crate) async fn rotate_admin(
    State(api): State<Api>,
    _: Operator,
    Path(name): Path<String>,
) -> Result<Json<Server>, Problem> {
    let plane = &api.plane;
    // Written down before the server hears of it.
    let mut change = plane.registry.change().await?;
    let row = locked(&change, &name).await?;
    if plane.registry.is_reached_by(&plane.admin_url(&row).map_err(unusable)?) {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "registry-uses-admin",
            "The registry is reached by the same login role, and nobody could reach it once the password is another. Give \
             `registry.url` a role of its own, then rotate the admin.",
        ));
    }
    let row = if row.next_sealed_admin_url.is_some() {
        row
    } else {
        let engine = plane.engine(&row).map_err(unusable)?;
        let password = new_password(&mut rand::rng());
        let Some(url) = engine.admin_url_with(&password) else {
            return Err(Problem::new(
                StatusCode::CONFLICT,
                "no-credentials",
                "A server of this kind has no credentials that could be rotated.",
            ));
        };
        let sealed = plane.servers_ring.seal(next_admin_url_subject(&row), &url, &mut rand::rng());
        let mut row = row.into_active_model();
        row.next_sealed_admin_url = Set(Some(sealed.as_stored().to_owned()));
        row.update(change.db()).await?
    };
    change.audit(Deed::on_platform("server.admin-rotation-begun", name.as_str()));
    change.commit().await?;

    // Whoever finds it later goes on with it, should this break off.
    let now = provision::settle_admin(plane, &row).await.map_err(|error| match error {
        StockError::Registry(error) => error.into(),
        StockError::Engine(error) => unusable(error),
        error => unusable(EngineError::unavailable(error.to_string())),
    })?;
    Ok(Json(now.into()))
}

fn unusable(error: EngineError) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "server-unusable",
        format!("The server cannot be used now: {error}. Repeat the call; it goes on where this one stopped."),
    )
    .with_source(error)
}
