//! Shares of servers' connections.

use sea_orm::entity::prelude::*;

/// One process' share of one server. `held` is the most that it may still have there; `number` that of the newest grant.
/// `is_leaving`: the process is gone, and what it has left ends with the last of its sessions there.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "shares")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub server_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub holder: Uuid,
    pub node_id: Uuid,
    pub share: i32,
    pub held: i32,
    pub number: i64,
    pub wanted: i32,
    pub is_leaving: bool,
    pub heard_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
