//! What is to be seen after the work: a whole tenant, none at all, and nothing left over.

use sea_orm::{ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter, Statement};
use secrecy::ExposeSecret;
use tenancy::Status;
use tenancy::route::Revision;

use super::stage::Stage;
use crate::engine::EngineKind;
use crate::registry::entities::{config, databases, domains, keys, operations, outbox};

impl Stage {
    /// What of these databases is on the server though the registry does not have it. On SQLite, of any.
    pub(super) async fn leftovers(&self, names: &[String]) -> Vec<String> {
        let known = [self.names().await, self.stock().await].concat();
        let mut found = Vec::new();
        if self.kind() == EngineKind::Sqlite {
            for entry in std::fs::read_dir(self.folder.path().join("databases")).unwrap() {
                found.push(entry.unwrap().file_name().into_string().unwrap());
            }
        } else {
            let admin = self.admin().await;
            for name in names {
                let sql = "SELECT datname::text FROM pg_database WHERE datname = $1 \
                           UNION ALL SELECT rolname::text FROM pg_roles WHERE rolname LIKE $1 || '%'";
                let statement = Statement::from_sql_and_values(admin.get_database_backend(), sql, [name.into()]);
                for row in admin.query_all_raw(statement).await.unwrap() {
                    found.push(row.try_get_by_index(0).unwrap());
                }
            }
            admin.close().await.unwrap();
        }
        found.retain(|found| !known.iter().any(|name| found.starts_with(name)));
        found
    }

    /// The tenant's mail.
    pub(super) async fn mail(&self, operation: &operations::Model) -> Vec<outbox::Model> {
        let its = outbox::Column::TenantId.eq(operation.tenant_id.unwrap());
        outbox::Entity::find().filter(its).all(self.plane.registry.db()).await.unwrap()
    }

    /// The tenant is whole: welcomed once, visible, with a database that is its own, migrated, and seeded once.
    pub(super) async fn assert_built(&self, operation: &operations::Model) {
        let route = self.route(operation).await.expect("an active tenant has a route");
        assert_eq!((route.status, route.generation, route.schema_version), (Status::Active, 1, 2));
        assert!(route.revision > Revision(0));
        assert_eq!(self.mail(operation).await.len(), 1);
        let url = self.plane.tenants_ring.open(route.url_subject(), &route.sealed_url).unwrap();
        let db = service::pool::open(url.expose_secret()).await.unwrap();
        let texts = async |sql: &str| -> Vec<String> {
            let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
            rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
        };
        assert_eq!(texts("SELECT text FROM notes").await, [format!("for {}", route.slug.as_str())]);
        assert_eq!(texts(tenancy::stamp::SELECT).await, [operation.tenant_id.unwrap().to_string()]);
        db.close().await.unwrap();
    }

    /// Nothing of the tenant is left but its tombstone.
    pub(super) async fn assert_forgotten(&self, operation: &operations::Model) {
        let (db, id) = (self.plane.registry.db(), operation.tenant_id.unwrap());
        let tenant = self.tenant(operation).await;
        assert_eq!(tenant.status, "deleted");
        assert_eq!((tenant.sealed_url, tenant.server_id, tenant.admin_email), (None, None, None));
        assert!(self.route(operation).await.is_none());
        assert!(self.mail(operation).await.is_empty());
        assert!(config::Entity::find().filter(config::Column::TenantId.eq(id)).one(db).await.unwrap().is_none());
        assert!(domains::Entity::find().filter(domains::Column::TenantId.eq(id)).one(db).await.unwrap().is_none());
        assert!(keys::Entity::find().filter(keys::Column::TenantId.eq(id)).one(db).await.unwrap().is_none());
        assert!(databases::Entity::find().filter(databases::Column::TenantId.eq(id)).one(db).await.unwrap().is_none());
    }

    /// The tenant's one URL dials, and no other login role of its database may log in.
    pub(super) async fn assert_credentials(&self, created: &operations::Model) {
        let tenant = self.tenant(created).await;
        let all = databases::Entity::find().filter(databases::Column::TenantId.eq(tenant.id));
        let row = all.one(self.plane.registry.db()).await.unwrap().unwrap();
        assert_eq!((row.generation, Some(&row.sealed_url)), (tenant.generation, tenant.sealed_url.as_ref()));
        let db = service::pool::open(self.open_url(&row).expose_secret()).await.unwrap();
        db.execute_unprepared("SELECT text FROM notes").await.unwrap();
        db.close().await.unwrap();
        if self.kind() == EngineKind::Postgres {
            let admin = self.admin().await;
            let sql = "SELECT rolname::text FROM pg_roles WHERE rolname LIKE $1 || '%' AND rolcanlogin";
            let statement =
                Statement::from_sql_and_values(admin.get_database_backend(), sql, [row.name.as_str().into()]);
            let rows = admin.query_all_raw(statement).await.unwrap();
            let may_log_in: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
            assert_eq!(may_log_in, [format!("{}_{}", row.name, row.slot)]);
            admin.close().await.unwrap();
        }
    }
}
