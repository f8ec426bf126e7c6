//! Shares of servers' connections.

use sea_orm::entity::prelude::*;

/// One process' share of one server. `held` is the most that it may still have there; `number` that of the newest grant.
/// `is_leaving`: the process is gone, and what it has left ends with the last of its sessions there. `anchor` names how it opens
/// its anchor, by the login role of this process with the number `anchor_number`; it is told once that is made.
/// `is_anchored`: the process said that it opens nothing without an anchor. `is_fenced`: it was silent and its anchor gone, so
/// that its login roles are dropped; once nothing is held, the row keeps what was granted before from counting again.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[allow(clippy::struct_excessive_bools, reason = "a row's columns")]
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
    pub anchor: Option<Uuid>,
    pub anchor_number: i64,
    pub sealed_anchor: Option<String>,
    pub is_anchor_made: bool,
    pub is_anchored: bool,
    pub is_fenced: bool,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
