//! Fleet migrations: rollouts, their waves and their targets.

/// A fleet migration.
pub(crate) mod rollouts {
    use sea_orm::entity::prelude::*;

    /// `state` is `running`, `paused`, `failed`, `aborted` or `done`. `wave` is the one whose targets are taken; until
    /// `rest_until` it is over and the next has not begun, and while `is_awaited` somebody has to say that it may;
    /// from `watched_from` its canaries' requests are counted.
    /// `already` counts the tenants that were at the version when it was ordered.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "rollouts")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub target_version: i32,
        pub is_down: bool,
        pub selection: Json,
        pub settings: Json,
        pub state: String,
        pub note: Option<String>,
        pub wave: i32,
        pub rest_until: Option<DateTimeUtc>,
        pub is_awaited: bool,
        pub watched_from: Option<DateTimeUtc>,
        pub has_moved_fleet: bool,
        pub already: i64,
        pub requested_by: String,
        pub epoch: Uuid,
        pub created_at: DateTimeUtc,
        pub finished_at: Option<DateTimeUtc>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Its waves, in their order.
pub(crate) mod rollout_waves {
    use sea_orm::entity::prelude::*;

    /// `kind` is `canary`, `wave` or `stragglers`.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "rollout_waves")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub rollout_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub position: i32,
        pub kind: String,
        pub size: i64,
        pub opened_at: Option<DateTimeUtc>,
        pub ended_at: Option<DateTimeUtc>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// One tenant's database in a rollout.
pub(crate) mod rollout_targets {
    use sea_orm::entity::prelude::*;

    /// `state` is `pending`, `running`, `done`, `failed` or `skipped`. `requests` and `errors` are a canary's.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "rollout_targets")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub rollout_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        pub server_id: Option<Uuid>,
        pub wave: i32,
        pub state: String,
        pub attempts: i32,
        pub version_before: i32,
        pub version_after: Option<i32>,
        pub duration_ms: Option<i64>,
        pub error: Option<String>,
        pub lease_holder: Option<Uuid>,
        pub lease_until: Option<DateTimeUtc>,
        pub fence: i64,
        pub run_after: DateTimeUtc,
        pub requests: i64,
        pub errors: i64,
        pub finished_at: Option<DateTimeUtc>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
