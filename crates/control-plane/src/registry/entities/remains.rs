//! What is kept beside tenants: who may work on them, mail about them, and what remains of them.

/// Who may call, by the digests of their tokens.
pub(crate) mod operators {
    use sea_orm::entity::prelude::*;

    /// `role` is `viewer`, `operator` or `admin`.
    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "operators")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub name: String,
        pub role: String,
        pub digest: String,
        pub created_by: String,
        pub created_at: DateTimeUtc,
        pub expires_at: Option<DateTimeUtc>,
        pub revoked_at: Option<DateTimeUtc>,
    }

    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Operator").field("id", &self.id).finish_non_exhaustive()
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Mail to be sent.
pub(crate) mod outbox {
    use sea_orm::entity::prelude::*;

    /// `kind` is `welcome`. Not sent while `sent_at` is null.
    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "outbox")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub tenant_id: Uuid,
        pub kind: String,
        pub recipient: String,
        pub attempts: i32,
        pub error: Option<String>,
        pub run_after: DateTimeUtc,
        pub lease_holder: Option<Uuid>,
        pub lease_until: Option<DateTimeUtc>,
        pub created_at: DateTimeUtc,
        pub sent_at: Option<DateTimeUtc>,
    }

    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Mail").field("id", &self.id).finish_non_exhaustive()
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Slugs that a tenant left, renamed or deleted, and that no other may take yet.
pub(crate) mod held_slugs {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "held_slugs")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub slug: String,
        pub tenant_id: Uuid,
        pub until: DateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// What was destroyed of a tenant, when, and by whose will.
pub(crate) mod erasures {
    use sea_orm::entity::prelude::*;

    /// `row_counts` has the number of rows by table; a text that says why they were not counted; null where
    /// there was no database. Not erased while `erased_at` is null.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "erasures")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        pub requested_by: Option<String>,
        pub requested_at: DateTimeUtc,
        pub erased_at: Option<DateTimeUtc>,
        pub server: Option<String>,
        pub database: Option<String>,
        pub row_counts: Json,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
