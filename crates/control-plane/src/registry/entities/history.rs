//! The registry's history.

use sea_orm::entity::prelude::*;

/// One row. `lost_from` to `lost_to` are revisions that it lacks and `lost_node` was given.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "history")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: i32,
    pub epoch: Uuid,
    pub head: i64,
    pub schema_version: i32,
    pub mark: Option<String>,
    pub lost_from: Option<i64>,
    pub lost_to: Option<i64>,
    pub lost_node: Option<Uuid>,
    /// Counts the deals of servers' shares.
    pub shares: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
