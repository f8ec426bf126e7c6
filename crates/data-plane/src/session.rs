//! What an admitted request may do: its tenant's database, plan and configuration, and who calls.
//!
//! Only admission makes one. There is no ambient tenant, no default database and no other way to either.

mod db;
mod principal;
mod public;
mod scope;
mod transaction;

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::de::DeserializeOwned;
use service::Problem;
use tenancy::{Plan, Product, Slug, TenantId};

pub use db::TenantDb;
pub use principal::Principal;
pub use public::PublicSession;
pub use scope::{Scope, Scoped};
pub use transaction::TenantTransaction;

use crate::pools::PoolUse;
use crate::routes::InUse;
use crate::uses::Permit;

/// An admitted request's tenant. An extractor for the product's handlers; clones are the same session.
///
/// A handler is given one, and gets the tenant's database from it:
///
/// ```
/// async fn handler(session: data_plane::TenantSession) -> bool {
///     let db: data_plane::TenantDb = session.db().clone();
///     sea_orm::ConnectionTrait::execute_unprepared(&db, "SELECT 1").await.is_ok()
/// }
/// ```
///
/// There is no other way to either: none can be made,
///
/// ```compile_fail
/// async fn handler(session: data_plane::TenantSession) -> bool {
///     let db: data_plane::TenantDb = data_plane::TenantDb::new(todo!(), todo!());
///     sea_orm::ConnectionTrait::execute_unprepared(&db, "SELECT 1").await.is_ok()
/// }
/// ```
///
/// none is there without a request,
///
/// ```compile_fail
/// async fn handler() -> bool {
///     let session: data_plane::TenantSession = Default::default();
///     let db: data_plane::TenantDb = session.db().clone();
///     sea_orm::ConnectionTrait::execute_unprepared(&db, "SELECT 1").await.is_ok()
/// }
/// ```
///
/// and neither the pool nor its URL is had from a database, to be kept or dialled again:
///
/// ```compile_fail
/// async fn handler(session: data_plane::TenantSession) -> bool {
///     let db: sea_orm::DatabaseConnection = session.db().pool().clone();
///     sea_orm::ConnectionTrait::execute_unprepared(&db, "SELECT 1").await.is_ok()
/// }
/// ```
#[derive(Clone, Debug)]
pub struct TenantSession(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    served: InUse,
    principal: Principal,
    db: TenantDb,
    product: Arc<Product>,
}

impl TenantSession {
    pub(crate) fn new(
        served: InUse,
        principal: Principal,
        pool: PoolUse,
        permit: Permit,
        product: Arc<Product>,
    ) -> Self {
        Self(Arc::new(Inner { served, principal, db: TenantDb::new(pool, permit), product }))
    }

    /// The tenant's database.
    pub fn db(&self) -> &TenantDb {
        &self.0.db
    }

    /// The tenant.
    pub fn tenant(&self) -> TenantId {
        self.0.served.route.tenant
    }

    /// The tenant's slug.
    pub fn slug(&self) -> &Slug {
        &self.0.served.route.slug
    }

    /// The tenant's limits.
    pub fn plan(&self) -> &Plan {
        &self.0.served.route.plan
    }

    /// The schema version that the tenant's database has at least: never less than what the product declares that it needs,
    /// and more where a rollout has been.
    pub fn schema_version(&self) -> u32 {
        self.0.served.route.schema_version
    }

    /// Who calls.
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// The tenant's configuration.
    pub fn config(&self) -> ConfigView<'_> {
        ConfigView { entries: &self.0.served.route.config, product: &self.0.product }
    }
}

impl<S: Sync> FromRequestParts<S> for TenantSession {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let admitted = parts.extensions.get::<Self>().cloned();
        admitted.ok_or_else(|| Problem::internal("the handler asks for a session and is not behind admission"))
    }
}

/// A tenant's configuration as its handlers read it: what was set, else what the product declared.
#[derive(Clone, Copy, Debug)]
pub struct ConfigView<'a> {
    entries: &'a std::collections::BTreeMap<String, serde_json::Value>,
    product: &'a Product,
}

impl ConfigView<'_> {
    /// The value of a declared key. An undeclared key, or a type that the key does not have, is the product's own mistake
    /// and is answered 500.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<T, Problem> {
        let Some(declared) = self.product.config_key(key) else {
            return Err(Problem::internal(format!("the product declares no configuration key {key:?}")));
        };
        let value = self.entries.get(key).unwrap_or(&declared.default);
        T::deserialize(value).map_err(Problem::internal)
    }
}

#[cfg(test)]
mod tests;
