//! Servers that tenants are placed on.

use chrono::Utc;
use sea_orm::sea_query::Expr;
use sea_orm::{ActiveModelTrait, ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter};
use secrecy::SecretString;
use tenancy::seal::{Purpose, Subject};
use uuid::Uuid;

use super::Stage;
use crate::engine::EngineKind;
use crate::registry::entities::servers;

impl Stage {
    fn seal_admin_url(&self, server: Uuid, url: &SecretString) -> String {
        let subject = Subject { purpose: Purpose::ServerAdminUrl, id: server, generation: 1 };
        self.plane.servers_ring.seal(subject, url, &mut rand::rng()).as_stored().to_owned()
    }

    /// The first server is reached by another URL.
    pub(crate) async fn move_server(&self, url: &SecretString) {
        servers::Entity::update_many()
            .col_expr(servers::Column::SealedAdminUrl, Expr::value(self.seal_admin_url(self.server, url)))
            .filter(servers::Column::Id.eq(self.server))
            .exec(self.plane.registry.db())
            .await
            .unwrap();
    }

    pub(crate) async fn add_server(&self, name: &str, region: &str, kind: EngineKind, capacity: i32) -> Uuid {
        self.add_server_at(name, region, kind, capacity, &self.admin_url).await
    }

    pub(crate) async fn add_server_at(
        &self,
        name: &str,
        region: &str,
        kind: EngineKind,
        capacity: i32,
        url: &SecretString,
    ) -> Uuid {
        let id = Uuid::now_v7();
        let row = servers::ActiveModel {
            id: Set(id),
            name: Set(name.to_owned()),
            engine: Set(kind.as_str().to_owned()),
            region: Set(region.to_owned()),
            state: Set("open".to_owned()),
            capacity: Set(capacity),
            connection_budget: Set(20),
            connect_rate: Set(200),
            control_reserve: Set(100),
            sealed_admin_url: Set(self.seal_admin_url(id, url)),
            generation: Set(1),
            created_at: Set(Utc::now()),
            next_sealed_admin_url: Set(None),
            warm_target: Set(0),
            placed: Set(0),
            address_number: Set(1),
            data_address: Set(None),
        };
        row.insert(self.plane.registry.db()).await.unwrap();
        id
    }
}
