//! `/v1/nodes`: the running data planes.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use serde::Serialize;
use service::Problem;
use service::extract::{Json, Path, Query};
use service::problem::ProblemBody;
use tenancy::id::NodeId;
use utoipa::ToSchema;

use super::Api;
use super::auth::{Caller, Operator};
use super::page::{Page, PageQuery, after, limit};
use crate::audit::{Account, Deed};
use crate::registry::entities::nodes;

/// A data plane.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct Node {
    id: NodeId,
    /// It serves and dials nothing older than this revision.
    applied: i64,
    first_seen: DateTime<Utc>,
    last_seen: DateTime<Utc>,
}

impl From<nodes::Model> for Node {
    fn from(row: nodes::Model) -> Self {
        Self { id: row.id.into(), applied: row.applied, first_seen: row.first_seen, last_seen: row.last_seen }
    }
}

/// Lists data planes.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", params(PageQuery), responses((status = 200, body = Page<Node>)))]
pub(super) async fn list(
    State(api): State<Api>,
    _: Operator,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<Node>>, Problem> {
    let limit = limit(page.limit)?;
    let rows = api.plane.registry.nodes(after(page.cursor.as_deref())?, limit + 1).await?;
    Ok(Json(Page::of(rows, limit, |row| row.id.to_string(), Node::from)))
}

/// Forgets a data plane: nobody waits for it any more. A node says goodbye by it; one that still runs comes back.
#[utoipa::path(
    delete, path = "/v1/nodes/{id}", tag = "nodes", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody))
)]
pub(super) async fn forget(State(api): State<Api>, _: Caller, Path(id): Path<NodeId>) -> Result<StatusCode, Problem> {
    let mut change = api.plane.registry.change().await?;
    // A node that says goodbye is no deed of an operator's.
    let by_operator = Account::current().is_some();
    let Some(gone) = api.plane.registry.forget(&change, id, !by_operator).await?.map(Node::from) else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "node-not-found",
            "There is no such node. GET /v1/nodes lists them.",
        ));
    };
    if by_operator {
        change.audit(Deed::on_platform("node.forgotten", id.to_string()).before(&gone));
    }
    change.commit().await?;
    // The others hear at once that there is one less; if this fails, with their next request.
    let _ = api.plane.registry.nodes_of_late().await;
    Ok(StatusCode::NO_CONTENT)
}
