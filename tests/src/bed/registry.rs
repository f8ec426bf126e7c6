//! The registry and the tenants' databases behind the control plane's back: looked into, backed up, restored.

use std::fs;
use std::path::PathBuf;

use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement};
use secrecy::ExposeSecret as _;
use tenancy::seal::{KeyRing, KeyRingConfig, Purpose, Sealed, Subject};

use super::{Bed, Store, Tenant};

/// A copy of the registry, while no control plane ran.
pub struct Backup(String);

fn superuser_url() -> String {
    std::env::var("FREEHOLD_TEST_POSTGRES_SUPERUSER_URL")
        .expect("run this by `cargo xtask test`, which starts a Postgres")
}

/// The role of a URL.
fn role(url: &str) -> &str {
    url.split_once("://").unwrap().1.split_once(':').unwrap().0
}

impl Bed {
    /// The registry's own database, behind the control plane's back.
    pub async fn registry(&self) -> DatabaseConnection {
        service::pool::open(&self.registry_url).await.unwrap()
    }

    /// Has the registry's sessions refuse writes that begin from now on, as a primary that was demoted, and ends those that there are;
    /// or has those that begin from now on take them, and ends none. On Postgres.
    pub async fn refuse_registry_writes(&self, is_refused: bool) {
        let name = self.registry_url.rsplit_once('/').unwrap().1;
        let db = service::pool::open(superuser_url()).await.unwrap();
        let value = if is_refused { "on" } else { "off" };
        db.execute_unprepared(&format!("ALTER DATABASE \"{name}\" SET default_transaction_read_only = {value}"))
            .await
            .unwrap();
        if is_refused {
            let end = format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'");
            db.execute_unprepared(&end).await.unwrap();
        }
        db.close().await.unwrap();
    }

    /// The name of a tenant's database and its sealed URL, as the registry has them.
    pub async fn registry_row(&self, tenant: &Tenant) -> (String, String) {
        let registry = self.registry().await;
        let id = uuid::Uuid::parse_str(&tenant.id).unwrap();
        let query = Statement::from_sql_and_values(
            registry.get_database_backend(),
            "SELECT name, sealed_url FROM databases WHERE tenant_id = $1",
            [id.into()],
        );
        let row = registry.query_one_raw(query).await.unwrap().unwrap();
        registry.close().await.unwrap();
        (row.try_get_by_index(0).unwrap(), row.try_get_by_index(1).unwrap())
    }

    /// Seals a tenant's URL anew, with this `host:port` in its place; on Postgres, and for nodes that have not heard of it yet.
    pub async fn point_to(&self, tenant: &Tenant, address: &str) {
        let keys = [("k1".to_owned(), super::TENANTS_KEY.to_owned().into())].into();
        let ring = KeyRing::new(&KeyRingConfig { primary: "k1".to_owned(), keys }).unwrap();
        let registry = self.registry().await;
        let id = uuid::Uuid::parse_str(&tenant.id).unwrap();
        let subject = Subject { purpose: Purpose::TenantUrl, id, generation: 1 };
        let (_, sealed) = self.registry_row(tenant).await;
        let url = ring.open(subject, &Sealed::from_stored(sealed)).unwrap();
        let (role, place) = url.expose_secret().rsplit_once('@').unwrap();
        let elsewhere = format!("{role}@{address}/{}", place.split_once('/').unwrap().1);
        let sealed = ring.seal(subject, &elsewhere.into(), &mut rand::rng()).as_stored().to_owned();
        let query = "UPDATE tenants SET sealed_url = $1 WHERE id = $2";
        let backend = registry.get_database_backend();
        registry.execute_raw(Statement::from_sql_and_values(backend, query, [sealed.into(), id.into()])).await.unwrap();
        registry.close().await.unwrap();
    }

    /// The URL of a tenant's database for the harness, which may do anything in it.
    pub async fn database_url(&self, tenant: &Tenant) -> String {
        let (name, _) = self.registry_row(tenant).await;
        match self.store {
            Store::Sqlite => format!("sqlite://{}/tenants/{name}/database.db", self.folder.path().display()),
            Store::Postgres => {
                format!("{}/{name}", superuser_url().rsplit_once('/').unwrap().0)
            }
        }
    }

    /// The tests' Postgres for the harness, which may do anything there.
    pub fn superuser_url(&self) -> String {
        superuser_url()
    }

    /// The registry's URL for the harness, which may do anything in it; on Postgres.
    pub fn registry_url_of_superuser(&self) -> String {
        let name = self.registry_url.rsplit_once('/').unwrap().1;
        format!("{}/{name}", superuser_url().rsplit_once('/').unwrap().0)
    }

    /// A number that the registry tells.
    pub async fn registry_number(&self, sql: &str) -> usize {
        let registry = self.registry().await;
        let row = registry.query_one_raw(Statement::from_string(registry.get_database_backend(), sql)).await.unwrap();
        let number: i64 = row.unwrap().try_get_by_index(0).unwrap();
        registry.close().await.unwrap();
        usize::try_from(number).unwrap()
    }

    /// The name of a server's template.
    pub async fn template(&self) -> String {
        let registry = self.registry().await;
        let query = Statement::from_string(registry.get_database_backend(), "SELECT name FROM templates");
        let name = registry.query_one_raw(query).await.unwrap().unwrap().try_get_by_index(0).unwrap();
        registry.close().await.unwrap();
        name
    }

    /// The URLs that data planes dial now, opened with the ring of the test: what no log and no answer may tell.
    pub async fn open_urls(&self) -> Vec<String> {
        self.open_urls_by_tenant().await.into_iter().map(|(_, url)| url).collect()
    }

    /// As [`Bed::open_urls`], each with its tenant's id.
    pub async fn open_urls_by_tenant(&self) -> Vec<(String, String)> {
        let keys = [("k1".to_owned(), super::TENANTS_KEY.to_owned().into())].into();
        let ring = KeyRing::new(&KeyRingConfig { primary: "k1".to_owned(), keys }).unwrap();
        let registry = self.registry().await;
        let query = "SELECT tenant_id, generation, sealed_url FROM databases";
        let query = Statement::from_string(registry.get_database_backend(), query);
        let mut urls = Vec::new();
        for row in registry.query_all_raw(query).await.unwrap() {
            let id: uuid::Uuid = row.try_get_by_index(0).unwrap();
            let generation: i64 = row.try_get_by_index(1).unwrap();
            let sealed: String = row.try_get_by_index(2).unwrap();
            let subject = Subject { purpose: Purpose::TenantUrl, id, generation: generation.unsigned_abs() };
            let url = ring.open(subject, &Sealed::from_stored(sealed)).unwrap();
            urls.push((id.to_string(), url.expose_secret().to_owned()));
        }
        registry.close().await.unwrap();
        urls
    }

    /// The URLs of databases that wait for a tenant.
    pub async fn warm_urls(&self) -> Vec<String> {
        let keys = [("k1".to_owned(), super::SERVERS_KEY.to_owned().into())].into();
        let ring = KeyRing::new(&KeyRingConfig { primary: "k1".to_owned(), keys }).unwrap();
        let registry = self.registry().await;
        let query = "SELECT id, sealed_url FROM warm_databases WHERE state = 'ready'";
        let rows =
            registry.query_all_raw(Statement::from_string(registry.get_database_backend(), query)).await.unwrap();
        let open = |row: &sea_orm::QueryResult| {
            let subject = Subject { purpose: Purpose::WarmUrl, id: row.try_get_by_index(0).unwrap(), generation: 1 };
            let sealed: String = row.try_get_by_index(1).unwrap();
            ring.open(subject, &Sealed::from_stored(sealed)).unwrap().expose_secret().to_owned()
        };
        let urls = rows.iter().map(open).collect();
        registry.close().await.unwrap();
        urls
    }

    /// Writes so many suspended tenants into a registry on Postgres, whose URLs an old key has sealed.
    pub async fn plant_old_urls(&self, count: usize) {
        let keys = [("k0".to_owned(), super::OLD_KEY.to_owned().into())].into();
        let ring = KeyRing::new(&KeyRingConfig { primary: "k0".to_owned(), keys }).unwrap();
        let url = "postgres://fh_000000000000000000000000_a:a-password-of-256-bits-in-43-letters-000000@127.0.0.1:5432/\
                   fh_000000000000000000000000";
        let registry = self.registry().await;
        let mut numbers = (0..count).peekable();
        while numbers.peek().is_some() {
            let rows: Vec<String> = numbers
                .by_ref()
                .take(1_000)
                .map(|number| {
                    let id = uuid::Uuid::new_v4();
                    let subject = Subject { purpose: Purpose::TenantUrl, id, generation: 1 };
                    let sealed = ring.seal(subject, &url.to_owned().into(), &mut rand::rng());
                    let sealed = sealed.as_stored();
                    format!(
                        "('{id}', 'old-{number}', 'Old', 'suspended', 'free', 1, 1, '{sealed}', 0, 1, now(), now())"
                    )
                })
                .collect();
            let insert = format!(
                "INSERT INTO tenants (id, slug, name, status, plan, schema_version, generation, sealed_url, revision, version, \
                 created_at, updated_at) VALUES {}",
                rows.join(", ")
            );
            registry.execute_unprepared(&insert).await.unwrap();
        }
        registry.close().await.unwrap();
    }

    /// Everything that the registry holds, as text.
    pub async fn dump_registry(&self) -> String {
        let registry = self.registry().await;
        let backend = registry.get_database_backend();
        let tables = match self.store {
            Store::Sqlite => "SELECT name FROM sqlite_schema WHERE type = 'table'",
            Store::Postgres => "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'",
        };
        let mut dump = String::new();
        for table in registry.query_all_raw(Statement::from_string(backend, tables)).await.unwrap() {
            let table: String = table.try_get_by_index(0).unwrap();
            dump.extend(["\n", table.as_str(), "\n"]);
            let rows = match self.store {
                Store::Postgres => format!("SELECT row_to_json(t)::text FROM \"{table}\" t"),
                // The file itself holds all of it, and what was deleted too.
                Store::Sqlite => continue,
            };
            for row in registry.query_all_raw(Statement::from_string(backend, rows)).await.unwrap() {
                dump.push_str(&row.try_get_by_index::<String>(0).unwrap());
                dump.push('\n');
            }
        }
        if self.store == Store::Sqlite {
            for suffix in ["", "-wal"] {
                let file = self.folder.path().join(format!("registry.db{suffix}"));
                dump.push_str(&String::from_utf8_lossy(&fs::read(file).unwrap_or_default()));
            }
        }
        registry.close().await.unwrap();
        dump
    }

    /// New tenants get this schema version, as before later migrations were rolled out.
    pub async fn new_tenants_get(&self, version: u32) {
        let registry = self.registry().await;
        registry.execute_unprepared(&format!("UPDATE history SET schema_version = {version}")).await.unwrap();
        registry.close().await.unwrap();
    }

    /// The newest revision.
    pub async fn registry_head(&self) -> i64 {
        let registry = self.registry().await;
        let query = Statement::from_string(registry.get_database_backend(), "SELECT head FROM history");
        let head = registry.query_one_raw(query).await.unwrap().unwrap().try_get_by_index(0).unwrap();
        registry.close().await.unwrap();
        head
    }

    /// Copies the registry. No control plane may run.
    pub async fn back_up_registry(&self) -> Backup {
        match self.store {
            Store::Sqlite => {
                let copy = self.folder.path().join("backup.db").display().to_string();
                let registry = self.registry().await;
                registry.execute_unprepared(&format!("VACUUM INTO '{copy}'")).await.unwrap();
                registry.close().await.unwrap();
                Backup(copy)
            }
            Store::Postgres => {
                let name = self.registry_url.rsplit_once('/').unwrap().1;
                let copy = format!("{name}_backup");
                self.copy_database(name, &copy).await;
                Backup(copy)
            }
        }
    }

    /// Puts a copy in the registry's place. No control plane may run.
    pub async fn restore_registry(&self, backup: &Backup) {
        match self.store {
            Store::Sqlite => {
                let file: PathBuf = self.folder.path().join("registry.db");
                for suffix in ["", "-wal", "-shm"] {
                    let _ = fs::remove_file(format!("{}{suffix}", file.display()));
                }
                fs::copy(&backup.0, file).unwrap();
            }
            Store::Postgres => self.copy_database(&backup.0, self.registry_url.rsplit_once('/').unwrap().1).await,
        }
    }

    /// One database of the tests' Postgres as the other, which is replaced.
    async fn copy_database(&self, from: &str, to: &str) {
        let db = service::pool::open(superuser_url()).await.unwrap();
        let ended = format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{from}'");
        let owner = role(&self.registry_url);
        for sql in [
            format!("DROP DATABASE IF EXISTS \"{to}\" WITH (FORCE)"),
            ended,
            format!("CREATE DATABASE \"{to}\" TEMPLATE \"{from}\" OWNER \"{owner}\""),
        ] {
            db.execute_unprepared(&sql).await.unwrap();
        }
        db.close().await.unwrap();
    }
}
