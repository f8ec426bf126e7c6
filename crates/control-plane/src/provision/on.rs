//! What an operation is on: a tenant, or a server. Either has one at a time at work.

use sea_orm::sea_query::SimpleExpr;
use sea_orm::{ColumnTrait, DbErr};
use uuid::Uuid;

use crate::registry::entities::operations;

/// A tenant or a server, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum On {
    Tenant(Uuid),
    Server(Uuid),
}

impl On {
    /// What an operation is on.
    pub(crate) fn of(operation: &operations::Model) -> Result<Self, DbErr> {
        match (operation.tenant_id, operation.server_id) {
            (Some(tenant), _) => Ok(Self::Tenant(tenant)),
            (None, Some(server)) => Ok(Self::Server(server)),
            (None, None) => Err(DbErr::Custom(format!("the operation {} is on nothing", operation.id))),
        }
    }

    pub(crate) const fn tenant(self) -> Option<Uuid> {
        match self {
            Self::Tenant(tenant) => Some(tenant),
            Self::Server(_) => None,
        }
    }

    pub(crate) const fn server(self) -> Option<Uuid> {
        match self {
            Self::Tenant(_) => None,
            Self::Server(server) => Some(server),
        }
    }

    /// All operations on it.
    pub(super) fn operations(self) -> SimpleExpr {
        match self {
            Self::Tenant(tenant) => operations::Column::TenantId.eq(tenant),
            Self::Server(server) => operations::Column::ServerId.eq(server),
        }
    }
}
