//! `/v1/feed`, `/v1/routes` and `/v1/key-uses`: for data planes.

use axum::extract::State;
use http::StatusCode;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, ExprTrait, QueryFilter};
use service::Problem;
use service::extract::{Json, Query};
use service::problem::ProblemBody;
use tenancy::feed::{
    FeedAnswer, FeedRequest, KeyUse, KeyUses, MAX_CANARIES, MAX_KEY_USES, MAX_SHARES, MAX_WAIT_SECONDS, RouteAnswer,
    RouteQuery,
};

use super::Api;
use super::auth::Node;
use crate::fleet;
use crate::registry::entities::keys;

/// What happened after a revision; waits for news when nothing did.
#[utoipa::path(
    post, path = "/v1/feed", tag = "nodes", request_body = FeedRequest,
    responses((status = 200, body = FeedAnswer), (status = 422, body = ProblemBody))
)]
pub(super) async fn follow(
    State(api): State<Api>,
    _: Node,
    Json(request): Json<FeedRequest>,
) -> Result<Json<FeedAnswer>, Problem> {
    if request.wait > MAX_WAIT_SECONDS {
        return Err(Problem::invalid_field("wait", format!("must be at most {MAX_WAIT_SECONDS}")));
    }
    if request.applied > request.newest() {
        return Err(Problem::invalid_field("applied", "must be nothing that the node has not heard of"));
    }
    if request.canaries.len() > MAX_CANARIES {
        return Err(Problem::invalid_field("canaries", format!("has at most {MAX_CANARIES} tenants")));
    }
    if request.shares.len() > MAX_SHARES {
        return Err(Problem::invalid_field("shares", format!("has at most {MAX_SHARES} servers")));
    }
    let plane = &api.plane;
    plane.registry.heard(&request, plane.registry.now()).await?;
    plane.registry.settle_shares(&request).await?;
    let mut answer = plane.registry.follow(&request, plane.stale_after, &plane.stopping).await?;
    // Last: what is not answered the node tells again.
    fleet::count(&plane.registry, &request.canaries).await?;
    answer.keys = plane.tenants_ring.ids().map(str::to_owned).collect();
    Ok(Json(answer))
}

/// One tenant's route, by its id, its slug, one of its custom hosts, one of its issuers or the id of one of its keys.
#[utoipa::path(
    get, path = "/v1/routes", tag = "nodes", params(RouteQuery),
    responses((status = 200, body = RouteAnswer), (status = 400, body = ProblemBody))
)]
pub(super) async fn routes(
    State(api): State<Api>,
    _: Node,
    Query(query): Query<RouteQuery>,
) -> Result<Json<RouteAnswer>, Problem> {
    let asked = query.asked().ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid-query",
            "Name exactly one of `key`, `tenant`, `slug`, `host` and `issuer`.",
        )
    })?;
    Ok(Json(api.plane.registry.route(&asked).await?))
}

/// Notes when keys were last used.
#[utoipa::path(
    post, path = "/v1/key-uses", tag = "nodes", request_body = KeyUses,
    responses((status = 204), (status = 422, body = ProblemBody))
)]
pub(super) async fn key_uses(
    State(api): State<Api>,
    _: Node,
    Json(KeyUses { mut uses }): Json<KeyUses>,
) -> Result<StatusCode, Problem> {
    if uses.len() > MAX_KEY_USES {
        return Err(Problem::invalid_field("uses", format!("has at most {MAX_KEY_USES} keys: send several")));
    }
    let registry = &api.plane.registry;
    // In one order, so that two nodes wait for each other at most.
    uses.sort_by(|one, other| one.key.cmp(&other.key));
    let (transaction, now) = (registry.begin().await?, registry.now());
    for KeyUse { key, at } in uses {
        let at = std::cmp::min(at, now);
        let is_older = keys::Column::LastUsedAt.is_null().or(keys::Column::LastUsedAt.lt(at));
        keys::Entity::update_many()
            .col_expr(keys::Column::LastUsedAt, Expr::value(at))
            .filter(keys::Column::Id.eq(key.as_str()))
            .filter(is_older)
            .exec(&transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
