//! One statement that finds tenants with what belongs to them: a tenant's first request waits for it, and each further statement
//! is a further round trip.

use sea_orm::sea_query::{Expr, ExprTrait as _, Query, SelectStatement};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, FromQueryResult, IdenStatic as _, Iterable as _, JoinType,
    QueryResult,
};

use crate::registry::entities::{config, domains, history, issuers, keys, plans, servers, tenants};

/// Begin the names of the columns of each table.
const HISTORY: &str = "h_";
const TENANT: &str = "t_";
const PLAN: &str = "p_";
const KEY: &str = "k_";

const SERVER: &str = "server";
const HAS_MORE: &str = "has_more";

/// The history, and a tenant at the same moment: with its plan, its server's name and one of its keys.
pub(super) struct Found {
    pub(super) history: history::Model,
    pub(super) tenant: Option<tenants::Model>,
    pub(super) plan: Option<plans::Model>,
    pub(super) server: Option<String>,
    pub(super) key: Option<keys::Model>,
    /// It has domains, issuers or configuration. Most tenants have none.
    pub(super) has_more: bool,
}

impl FromQueryResult for Found {
    fn from_query_result(row: &QueryResult, _: &str) -> Result<Self, DbErr> {
        Ok(Self {
            history: history::Model::from_query_result(row, HISTORY)?,
            tenant: Option::from_query_result(row, TENANT)?,
            plan: Option::from_query_result(row, PLAN)?,
            server: row.try_get("", SERVER)?,
            key: Option::from_query_result(row, KEY)?,
            has_more: row.try_get("", HAS_MORE)?,
        })
    }
}

/// Each tenant that matches: a row for each of its keys, or one if it has none. If no tenant matches, one row without a tenant.
pub(super) async fn find(db: &impl ConnectionTrait, is_wanted: Expr) -> Result<Vec<Found>, DbErr> {
    Found::find_by_statement(db.get_database_backend().build(&select(is_wanted))).all(db).await
}

pub(super) fn select(is_wanted: Expr) -> SelectStatement {
    let of_plan = plans::Column::Name.into_expr().equals(tenants::Column::Plan.as_column_ref());
    let of_server = servers::Column::Id.into_expr().equals(tenants::Column::ServerId.as_column_ref());
    let more =
        has_any(domains::Column::TenantId).or(has_any(issuers::Column::TenantId)).or(has_any(config::Column::TenantId));
    let mut query = Query::select();
    query
        .from(history::Entity)
        .join(JoinType::LeftJoin, tenants::Entity, is_wanted)
        .join(JoinType::LeftJoin, plans::Entity, of_plan)
        .join(JoinType::LeftJoin, servers::Entity, of_server)
        .join(JoinType::LeftJoin, keys::Entity, is_of_tenant(keys::Column::TenantId))
        .and_where(history::Column::Id.eq(1))
        .expr_as(servers::Column::Name.into_expr(), SERVER)
        .expr_as(more, HAS_MORE);
    add_columns::<history::Entity>(&mut query, HISTORY);
    add_columns::<tenants::Entity>(&mut query, TENANT);
    add_columns::<plans::Entity>(&mut query, PLAN);
    add_columns::<keys::Entity>(&mut query, KEY);
    query
}

fn add_columns<E: EntityTrait>(query: &mut SelectStatement, prefix: &str) {
    for column in E::Column::iter() {
        query.expr_as(column.into_expr(), format!("{prefix}{}", column.as_str()));
    }
}

fn has_any<C: ColumnTrait>(owner: C) -> Expr {
    let (table, _) = owner.as_column_ref();
    Expr::exists(Query::select().expr(Expr::value(1)).from(table).and_where(is_of_tenant(owner)).to_owned())
}

fn is_of_tenant<C: ColumnTrait>(owner: C) -> Expr {
    owner.into_expr().equals(tenants::Column::Id.as_column_ref())
}
