//! What the pet store declares of itself, and what it brings for its tenants' databases.

use async_trait::async_trait;
use control_plane::{NewTenant, TenantSchema};
use data_plane::Scope;
use sea_orm::{DatabaseTransaction, DbErr};
use serde_json::json;
use tenancy::Product;
use tenancy::product::{ConfigKey, ValueType};

pub(crate) const NAME: &str = "Pet store";

/// To see pets.
pub(crate) struct ReadPets;

impl Scope for ReadPets {
    const NAME: &'static str = "pets:read";
}

/// To change pets.
pub(crate) struct WritePets;

impl Scope for WritePets {
    const NAME: &'static str = "pets:write";
}

/// Whether lists show deleted pets too.
pub(crate) const INCLUDE_DELETED_PETS: &str = "include_deleted_pets";

/// The declaration, for both planes.
pub fn product() -> Product {
    Product {
        name: NAME,
        mount: "/api",
        schema_version: 1,
        scopes: &[ReadPets::NAME, WritePets::NAME],
        config_keys: vec![ConfigKey {
            name: INCLUDE_DELETED_PETS,
            value_type: ValueType::Boolean,
            default: json!(false),
            meaning: "Whether lists of pets show the deleted ones too.",
        }],
    }
}

/// The migrations and the seed, for the control plane.
pub struct Schema;

#[async_trait]
impl TenantSchema for Schema {
    fn migrations(&self) -> Vec<Box<dyn tenant_migrations::MigrationTrait>> {
        tenant_migrations::migrations()
    }

    async fn seed(&self, db: &DatabaseTransaction, tenant: &NewTenant) -> Result<(), DbErr> {
        tenant_migrations::seed(db, tenant.admin_email.as_deref(), crate::pets::now()).await
    }
}
