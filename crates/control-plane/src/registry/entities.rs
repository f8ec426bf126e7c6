//! The registry's rows. Words are stored as the language's own (`active`, `postgres`); what they allow is decided
//! elsewhere.

mod audit;
mod fleet;
pub(crate) mod history;
pub(crate) mod nodes;
mod remains;
pub(crate) mod shares;
mod stock;

pub(crate) use audit::{audit_chains, audit_checkpoints, audit_spools, records};
pub(crate) use fleet::{rollout_targets, rollout_waves, rollouts};
pub(crate) use remains::{erasures, held_slugs, operators, outbox};
pub(crate) use stock::{templates, warm_databases};

/// Named limits.
pub(crate) mod plans {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "plans")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        pub requests: Option<i32>,
        pub window_seconds: i32,
        pub burst: Option<i32>,
        pub client_requests: Option<i32>,
        pub client_burst: Option<i32>,
        pub connections: i32,
        pub concurrency: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Where databases are.
pub(crate) mod servers {
    use sea_orm::entity::prelude::*;

    /// `state` is `open` or `draining`; `warm_target` is how many databases are kept ready, `placed` how many
    /// tenants have a place there.
    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "servers")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub name: String,
        pub engine: String,
        pub region: String,
        pub state: String,
        pub capacity: i32,
        pub connection_budget: i32,
        pub sealed_admin_url: String,
        pub generation: i64,
        pub created_at: DateTimeUtc,
        pub next_sealed_admin_url: Option<String>,
        pub warm_target: i32,
        pub placed: i32,
        /// Connections that all data planes together open in a second.
        pub connect_rate: i32,
        /// Connections that are left to control planes.
        pub control_reserve: i32,
        /// Counts the addresses that its tenants' URLs were to name.
        pub address_number: i64,
        /// Where data planes reach it, if not where its admin does.
        pub data_address: Option<String>,
    }

    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Server").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The customers.
pub(crate) mod tenants {
    use sea_orm::entity::prelude::*;

    /// `revision` is 0 until data planes may know of the tenant; `version` counts every change, for `ETag`.
    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tenants")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub slug: String,
        pub name: String,
        pub status: String,
        pub plan: String,
        pub region: Option<String>,
        pub admin_email: Option<String>,
        pub server_id: Option<Uuid>,
        pub schema_version: i32,
        pub generation: i64,
        pub sealed_url: Option<String>,
        pub revision: i64,
        pub version: i64,
        /// What a `deleting` tenant goes back to when it is restored.
        pub status_before: Option<String>,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        /// When a `deleting` tenant's grace period ends.
        pub delete_after: Option<DateTimeUtc>,
        /// Signed tokens issued before this count no longer.
        pub tokens_from: Option<DateTimeUtc>,
        /// Limits of its own; null for its plan's alone.
        pub limits: Option<Json>,
        /// Since when it has its slug; null where a control plane of an older version created it.
        pub slug_since: Option<DateTimeUtc>,
        /// How often an operator had its connections replaced.
        pub reconnects: i64,
        /// When that was for the last time.
        pub reconnected_at: Option<DateTimeUtc>,
    }

    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Tenant").field("id", &self.id).field("slug", &self.slug).finish_non_exhaustive()
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Custom hosts that are claimed and not proven; `token` is what their proof says.
pub(crate) mod domain_claims {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "domain_claims")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub host: String,
        pub token: String,
        pub created_at: DateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Custom hosts, proven.
pub(crate) mod domains {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "domains")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub host: String,
        pub tenant_id: Uuid,
        pub created_at: DateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// API keys, by their digests.
pub(crate) mod keys {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "keys")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub tenant_id: Uuid,
        pub name: String,
        pub digest: String,
        pub scopes: Json,
        pub expires_at: Option<DateTimeUtc>,
        pub created_at: DateTimeUtc,
        pub last_used_at: Option<DateTimeUtc>,
    }

    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Tenants' own issuers of tokens.
pub(crate) mod issuers {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "issuers")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        /// What its tokens say; no two tenants have the same.
        pub issuer: String,
        /// The rest of its description.
        pub described: Json,
        pub created_at: DateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Tenants' configuration.
pub(crate) mod config {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "config")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub key: String,
        pub value: Json,
        pub created_at: DateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Databases, under their opaque names.
pub(crate) mod databases {
    use sea_orm::entity::prelude::*;

    /// `slot` names the login role in use, `a` or `b`; the sealed URL holds its password. `next_…` are those of the role
    /// that is made ready to take over, if one is. `is_warm`: it was ready before its tenant came.
    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "databases")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub name: String,
        pub server_id: Uuid,
        pub tenant_id: Uuid,
        pub slot: String,
        pub generation: i64,
        pub sealed_url: String,
        pub created_at: DateTimeUtc,
        pub next_slot: Option<String>,
        pub next_generation: Option<i64>,
        pub next_sealed_url: Option<String>,
        pub rotated_at: Option<DateTimeUtc>,
        pub is_warm: bool,
        /// Which of its server's addresses the URL names, and the next URL.
        pub address_number: i64,
        pub next_address_number: Option<i64>,
    }

    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Database").field("name", &self.name).finish_non_exhaustive()
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Long actions.
pub(crate) mod operations {
    use sea_orm::entity::prelude::*;

    /// `kind` is `create`, `delete`, `rotate`, `fix` or `move`. It is on a tenant or on a server. `state` is `pending`, `running`, `undoing`, `done`, `failed` or `cancelled`.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "operations")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub kind: String,
        pub tenant_id: Option<Uuid>,
        pub server_id: Option<Uuid>,
        pub state: String,
        pub error: Option<String>,
        pub lease_holder: Option<Uuid>,
        pub lease_until: Option<DateTimeUtc>,
        pub fence: i64,
        pub run_after: DateTimeUtc,
        pub created_at: DateTimeUtc,
        pub finished_at: Option<DateTimeUtc>,
        pub is_forced: bool,
        pub awaited: Option<i64>,
        pub note: Option<String>,
        pub requested_by: Option<String>,
        /// The registry's epoch in which it was ordered.
        pub epoch: Option<Uuid>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Steps of long actions.
pub(crate) mod operation_steps {
    use sea_orm::entity::prelude::*;

    /// `state` is `pending`, `done`, `failed` or `undone`.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "operation_steps")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub operation_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub position: i32,
        pub name: String,
        pub state: String,
        pub attempts: i32,
        pub error: Option<String>,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Answers that a repeated request gets again.
pub(crate) mod idempotency {
    use sea_orm::entity::prelude::*;

    /// `scope` is a digest of token, path and key. No answer yet: the first request is still at work.
    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "idempotency")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub scope: String,
        pub claim: Uuid,
        pub body_digest: String,
        pub sealed_answer: Option<String>,
        pub created_at: DateTimeUtc,
    }

    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("Idempotency").field("scope", &self.scope).finish_non_exhaustive()
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
