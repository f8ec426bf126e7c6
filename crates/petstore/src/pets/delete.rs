//! `DELETE /pets/{id}`: the pet is marked, and shown no longer.

use data_plane::Scoped;
use http::StatusCode;
use sea_orm::sea_query::Expr;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use service::Problem;
use service::extract::Path;
use service::problem::ProblemBody;
use uuid::Uuid;

use super::{entity, not_found, now};
use crate::product::WritePets;

/// Deletes a pet.
#[utoipa::path(
    delete, path = "/pets/{id}", tag = "pets", params(("id" = Uuid, Path)),
    responses((status = 204), (status = 404, body = ProblemBody))
)]
pub(crate) async fn delete(session: Scoped<WritePets>, Path(id): Path<Uuid>) -> Result<StatusCode, Problem> {
    // One statement: of two who delete it at once, one is told that it was gone.
    let deleted = entity::Entity::update_many()
        .col_expr(entity::Column::DeletedAt, Expr::value(now()))
        .filter(entity::Column::Id.eq(id))
        .filter(entity::Column::DeletedAt.is_null())
        .exec(session.db())
        .await?;
    if deleted.rows_affected == 0 { Err(not_found()) } else { Ok(StatusCode::NO_CONTENT) }
}
