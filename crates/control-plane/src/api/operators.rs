//! `/v1/operators`: who may call this API, and how much of it. A token is told once, in the answer that makes it; only a
//! digest is kept.

use axum::extract::State;
use chrono::{DateTime, Utc};
use http::StatusCode;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, ExprTrait,
    PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use service::Problem;
use service::extract::{Json, Path, Query};
use service::problem::ProblemBody;
use tenancy::ApiKey;
use tenancy::audit::Chain;
use utoipa::ToSchema;

use super::Api;
use super::auth::role::Role;
use super::auth::{BOOTSTRAP, Operator, TOKEN_PREFIX, bootstrap_is_over};
use super::page::{Page, PageQuery, after, limit};
use super::tenants::text;
use crate::audit::{self, Deed};
use crate::registry::entities::operators;

pub(super) const PATH: &str = "/v1/operators";
/// Names that stand for no operator, in what is written down.
const RESERVED: [&str; 2] = [BOOTSTRAP, "control-plane"];
/// Tokens that count at once.
const MOST: u64 = 1_000;

/// Whether a token counts at this moment.
pub(super) fn counts(row: &operators::Model, now: DateTime<Utc>) -> bool {
    row.revoked_at.is_none() && row.expires_at.is_none_or(|expiry| expiry > now)
}

fn counting(now: DateTime<Utc>) -> Condition {
    let lasts = operators::Column::ExpiresAt.is_null().or(operators::Column::ExpiresAt.gt(now));
    Condition::all().add(operators::Column::RevokedAt.is_null()).add(lasts)
}

/// Whether anybody may make operators.
pub(super) async fn has_admin(db: &impl ConnectionTrait, now: DateTime<Utc>) -> Result<bool, DbErr> {
    let admins = operators::Entity::find().filter(counting(now));
    Ok(admins.filter(operators::Column::Role.eq(Role::Admin.as_str())).one(db).await?.is_some())
}

/// A new operator.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateOperator {
    /// Who or what it is, in what is written down: 1 to 100 characters.
    #[schema(example = "release-pipeline")]
    name: String,
    /// What it may do.
    role: Role,
    /// From when its token no longer counts.
    expires_at: Option<DateTime<Utc>>,
}

/// An operator, without its token.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct OperatorToken {
    id: String,
    name: String,
    #[schema(value_type = Role)]
    role: String,
    created_by: String,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

/// An operator that was just made.
#[derive(Serialize, ToSchema)]
pub(super) struct NewOperator {
    #[serde(flatten)]
    operator: OperatorToken,
    /// The whole token, `fo_<id>_<secret>`. It is told this once.
    token: String,
}

impl From<operators::Model> for OperatorToken {
    fn from(row: operators::Model) -> Self {
        let operators::Model { id, name, role, created_by, created_at, expires_at, revoked_at, .. } = row;
        Self { id, name, role, created_by, created_at, expires_at, revoked_at }
    }
}

/// Lists operators, with those whose tokens count no more.
#[utoipa::path(get, path = "/v1/operators", tag = "operators", params(PageQuery),
    responses((status = 200, body = Page<OperatorToken>), (status = 403, body = ProblemBody)))]
pub(super) async fn list(
    State(api): State<Api>,
    _: Operator,
    Query(page): Query<PageQuery>,
) -> Result<Json<Page<OperatorToken>>, Problem> {
    let limit = limit(page.limit)?;
    let mut select = operators::Entity::find();
    if let Some(after) = after::<String>(page.cursor.as_deref())? {
        select = select.filter(operators::Column::Id.gt(after));
    }
    let rows = select.order_by_asc(operators::Column::Id).limit(limit + 1).all(api.plane.registry.db()).await?;
    Ok(Json(Page::of(rows, limit, |row| row.id.clone(), OperatorToken::from)))
}

/// Makes an operator. The answer holds its token, this once. The bootstrap token makes the first, which is an admin.
#[utoipa::path(post, path = "/v1/operators", tag = "operators", request_body = CreateOperator,
    responses((status = 201, body = NewOperator), (status = 403, body = ProblemBody),
              (status = 409, description = "The name is taken", body = ProblemBody),
              (status = 422, body = ProblemBody)))]
pub(super) async fn create(
    State(api): State<Api>,
    operator: Operator,
    Json(body): Json<CreateOperator>,
) -> Result<(StatusCode, Json<NewOperator>), Problem> {
    let registry = &api.plane.registry;
    let now = registry.now();
    let name = text("name", &body.name, 100)?;
    if RESERVED.contains(&name.as_str()) {
        return Err(Problem::invalid_field("name", "is taken by a part of Freehold itself"));
    }
    if body.expires_at.is_some_and(|expiry| expiry <= now) {
        return Err(Problem::invalid_field("expires_at", "must be in the future"));
    }
    let mut change = registry.change().await?;
    // One after the other: no two are the first, and none takes the other's name.
    audit::lock(change.db(), Chain::Platform).await?;
    let is_first = !has_admin(change.db(), now).await?;
    if operator.is_bootstrap && !is_first {
        return Err(bootstrap_is_over());
    }
    if is_first && body.role != Role::Admin {
        return Err(Problem::invalid_field("role", "must be admin: the first makes the others"));
    }
    let live = operators::Entity::find().filter(counting(now));
    if live.clone().filter(operators::Column::Name.eq(name.as_str())).one(change.db()).await?.is_some() {
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "operator-taken",
            "There is an operator of this name. Choose another name, or revoke that one first.",
        ));
    }
    if live.count(change.db()).await? >= MOST {
        let detail = format!("There are {MOST} operators. Revoke one that is not used any more.");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too-many", detail));
    }
    let token = ApiKey::generate(&mut rand::rng());
    let row = operators::ActiveModel {
        id: Set(token.id().to_string()),
        name: Set(name),
        role: Set(body.role.as_str().to_owned()),
        digest: Set(token.digest().into()),
        created_by: Set(operator.subject),
        created_at: Set(now),
        expires_at: Set(body.expires_at),
        revoked_at: Set(None),
    };
    let made = OperatorToken::from(row.insert(change.db()).await?);
    change.audit(Deed::on_platform("operator.created", made.name.as_str()).after(&made));
    change.commit().await?;
    let token = token.reveal_as(TOKEN_PREFIX).expose_secret().to_owned();
    Ok((StatusCode::CREATED, Json(NewOperator { operator: made, token })))
}

/// Revokes an operator's token: it counts no more from the next call on.
#[utoipa::path(delete, path = "/v1/operators/{id}", tag = "operators", params(("id" = String, Path)),
    responses((status = 204), (status = 404, body = ProblemBody)))]
pub(super) async fn revoke(State(api): State<Api>, _: Operator, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let mut change = api.plane.registry.change().await?;
    let revoked = operators::Entity::update_many()
        .col_expr(operators::Column::RevokedAt, Expr::value(change.now()))
        .filter(operators::Column::Id.eq(id))
        .filter(operators::Column::RevokedAt.is_null())
        .exec_with_returning(change.db())
        .await?
        .pop();
    let Some(revoked) = revoked.map(OperatorToken::from) else {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "operator-not-found",
            "There is no such operator, or its token is revoked already. GET /v1/operators lists them.",
        ));
    };
    change.audit(Deed::on_platform("operator.revoked", revoked.name.as_str()).before(&revoked));
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
