//! Databases that are ready before anybody asks: templates, and copies of them that wait for their tenants.

/// One migrated database for each server and schema version, which the others are copies of.
pub(crate) mod templates {
    use sea_orm::entity::prelude::*;

    /// `state` is `building`, `ready` or `leaving`.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "templates")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub server_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub schema_version: i32,
        pub name: String,
        pub state: String,
        pub lease_holder: Option<Uuid>,
        pub lease_until: Option<DateTimeUtc>,
        pub created_at: DateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Databases that wait for their tenants.
pub(crate) mod warm_databases {
    use sea_orm::entity::prelude::*;

    /// `state` is `building`, `ready` or `leaving`. The URL is sealed for `id`.
    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "warm_databases")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        pub id: Uuid,
        pub server_id: Uuid,
        pub schema_version: i32,
        pub state: String,
        pub sealed_url: String,
        pub lease_holder: Option<Uuid>,
        pub lease_until: Option<DateTimeUtc>,
        pub created_at: DateTimeUtc,
    }

    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("WarmDatabase").field("name", &self.name).finish_non_exhaustive()
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
