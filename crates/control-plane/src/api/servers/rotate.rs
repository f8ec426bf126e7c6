//! `POST /v1/servers/{name}/rotate-admin`: another password for a server's admin, which nobody but the control plane knows.

use axum::extract::State;
use http::StatusCode;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, IntoActiveModel};
use secrecy::{ExposeSecret, SecretString};
use service::Problem;
use service::extract::{Json, Path};
use service::problem::ProblemBody;
use tenancy::seal::{Sealed, Subject};
use url::Url;

use super::{Server, admin_url_subject, locked};
use crate::api::Api;
use crate::api::auth::Operator;
use crate::engine::{EngineError, new_password};
use crate::registry::entities::servers;

/// Gives the server's admin another password. It may be repeated: a call that broke off is gone on with.
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
    let change = plane.registry.change().await?;
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
        let sealed = plane.servers_ring.seal(next_subject(&row), &url, &mut rand::rng());
        let mut row = row.into_active_model();
        row.next_sealed_admin_url = Set(Some(sealed.as_stored().to_owned()));
        row.update(change.db()).await?
    };
    change.commit().await?;

    let sealed = Sealed::from_stored(row.next_sealed_admin_url.clone().unwrap_or_default());
    let url = plane.servers_ring.open(next_subject(&row), &sealed).map_err(Problem::internal)?;
    let kind = row.engine.parse().map_err(unusable)?;
    let next = plane.engines.new_for(kind, &url).map_err(unusable)?;
    // A call before this one may have come as far as here.
    if next.answers().await.is_err() {
        plane.engine(&row).map_err(unusable)?.set_admin_password(&password_in(&url)).await.map_err(unusable)?;
        plane.engines.new_for(kind, &url).map_err(unusable)?.answers().await.map_err(unusable)?;
    }

    let change = plane.registry.change().await?;
    let now = locked(&change, &name).await?;
    // Another call of the same may have been faster. The text may have been sealed anew meanwhile.
    let now = if now.generation == row.generation
        && let Some(sealed) = now.next_sealed_admin_url.clone()
    {
        let generation = now.generation + 1;
        let mut now = now.into_active_model();
        now.sealed_admin_url = Set(sealed);
        now.next_sealed_admin_url = Set(None);
        now.generation = Set(generation);
        now.update(change.db()).await?
    } else {
        now
    };
    change.commit().await?;
    tracing::info!(server = name, audit = "admin-rotated", "a server's admin has another password");
    Ok(Json(now.into()))
}

fn next_subject(row: &servers::Model) -> Subject {
    Subject { generation: row.generation.unsigned_abs() + 1, ..admin_url_subject(row) }
}

/// Of URL-safe letters alone, so that nothing of it is escaped.
fn password_in(url: &SecretString) -> SecretString {
    let url = Url::parse(url.expose_secret()).ok();
    url.and_then(|url| url.password().map(str::to_owned)).unwrap_or_default().into()
}

fn unusable(error: EngineError) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "server-unusable",
        format!("The server cannot be used now: {error}. Repeat the call; it goes on where this one stopped."),
    )
    .with_source(error)
}
