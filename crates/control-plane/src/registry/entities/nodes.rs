//! Running data planes. `told` is the newest revision that a control plane told one of, in the epoch `told_epoch`.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "nodes")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub applied: i64,
    pub first_seen: DateTimeUtc,
    pub last_seen: DateTimeUtc,
    pub told: i64,
    pub told_epoch: Option<Uuid>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
