//! What every engine must do, on real servers.

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr, Statement, TransactionTrait};
use sea_orm_migration::prelude::{MigrationName, MigrationTrait, SchemaManager};
use secrecy::ExposeSecret;
use tenancy::TenantId;

use super::*;
use crate::schema::{NewTenant, TenantSchema};

struct Notes;

struct First;

impl MigrationName for First {
    fn name(&self) -> &'static str {
        "first"
    }
}

#[async_trait]
impl MigrationTrait for First {
    #[allow(elided_lifetimes_in_paths, reason = "the trait elides it")]
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("CREATE TABLE notes (text TEXT NOT NULL)").await.map(drop)
    }
}

#[async_trait]
impl TenantSchema for Notes {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(First)]
    }

    async fn seed(&self, db: &DatabaseTransaction, _: &NewTenant) -> Result<(), DbErr> {
        db.execute_unprepared("INSERT INTO notes (text) VALUES ('seeded')").await.map(drop)
    }
}

fn new_tenant() -> NewTenant {
    NewTenant { id: TenantId::generate(), slug: "acme".parse().unwrap(), name: "Acme".into(), admin_email: None }
}

fn mark() -> Mark {
    Mark::generate(&mut rand::rng())
}

pub(crate) fn worker() -> Worker {
    Worker { id: Uuid::nil(), scram_iterations: NonZeroU32::MIN, patience: Worker::PATIENCE }
}

fn password() -> SecretString {
    "a-password_of-ours".to_owned().into()
}

fn postgres() -> Arc<dyn Engine> {
    let url =
        std::env::var("FREEHOLD_TEST_POSTGRES_URL").expect("run this by `cargo xtask test`, which starts a Postgres");
    engine_for(EngineKind::Postgres, &url.into(), None, worker()).unwrap()
}

/// Each step twice, as after a crash before its record.
async fn build_twice(engine: &dyn Engine, tenant: &NewTenant) -> DatabaseName {
    let name = DatabaseName::generate(&mark(), &mut rand::rng());
    for _ in 0..2 {
        engine.create_database(&name).await.unwrap();
        engine.create_role(&name, Slot::A, &password(), 4).await.unwrap();
        let entered = engine.enter(&name).await.unwrap();
        assert_eq!(entered.migrate(&Notes, 1).await.unwrap(), 1);
        entered.stamp(tenant.id).await.unwrap();
        entered.seed(&Notes, tenant).await.unwrap();
        entered.leave().await.unwrap();
    }
    name
}

async fn steps_may_be_repeated(engine: &dyn Engine) {
    let tenant = new_tenant();
    let name = build_twice(engine, &tenant).await;
    let url = engine.url(&name, Slot::A, &password());
    let db = service::pool::open(url.expose_secret()).await.unwrap();
    let rows = db.query_all_raw(sea_orm::Statement::from_string(db.get_database_backend(), "SELECT text FROM notes"));
    assert_eq!(rows.await.unwrap().len(), 1, "seeded once");
    db.close().await.unwrap();
    let entered = engine.enter(&name).await.unwrap();
    assert!(entered.stamp(TenantId::generate()).await.is_err(), "stamped for another tenant");
    assert!(entered.migrate(&Notes, 2).await.is_err(), "a version that the program lacks");
    assert_eq!(serde_json::Value::from(entered.count_rows().await.unwrap()), serde_json::json!({ "notes": 1 }));
    entered.leave().await.unwrap();
    engine.drop_database(&name).await.unwrap();
    engine.drop_database(&name).await.unwrap();
    assert!(service::pool::open(format!("{}?mode=rw", url.expose_secret()).replace("?mode=rw", "")).await.is_err());
}

#[tokio::test]
async fn every_step_may_be_repeated_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().display());
    let engine = engine_for(EngineKind::Sqlite, &url.into(), None, worker()).unwrap();
    engine.check().await.unwrap();
    steps_may_be_repeated(engine.as_ref()).await;
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left over");
}

#[tokio::test]
async fn every_step_may_be_repeated_on_postgres() {
    let engine = postgres();
    engine.check().await.unwrap();
    steps_may_be_repeated(engine.as_ref()).await;
}

/// A pool of one: a role may have few connections.
async fn alone(url: &str) -> sea_orm::DatabaseConnection {
    let mut options = sea_orm::ConnectOptions::new(url);
    options.max_connections(1);
    service::pool::open(options).await.unwrap()
}

/// How the server calls its refusal.
async fn refusal(db: &impl ConnectionTrait, sql: &str) -> Option<String> {
    let refused = db.execute_unprepared(sql).await;
    error::sqlstate(&refused.expect_err(sql))
}

#[tokio::test]
async fn a_runtime_role_does_dml_in_its_own_database_and_nothing_else() {
    let engine = postgres();
    engine.check().await.unwrap();
    let (mine, other) = (new_tenant(), new_tenant());
    let (name, foreign) = (build_twice(engine.as_ref(), &mine).await, build_twice(engine.as_ref(), &other).await);
    let url = engine.url(&name, Slot::A, &password());
    let db = alone(url.expose_secret()).await;
    db.execute_unprepared("INSERT INTO notes (text) VALUES ('x'); UPDATE notes SET text = 'y'; DELETE FROM notes")
        .await
        .unwrap();
    for refused in [
        "CREATE TABLE t (id int)",
        "CREATE TEMP TABLE t (id int)",
        "DROP TABLE notes",
        "ALTER TABLE notes ADD COLUMN x int",
        "TRUNCATE notes",
        "UPDATE freehold_stamp SET tenant_id = 'x'",
        "DELETE FROM freehold_stamp",
        "DELETE FROM freehold_migrations",
        "DELETE FROM freehold_seed",
        "SET ROLE freehold_owner",
        "CREATE ROLE x",
        "CREATE SCHEMA x",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY notes TO '/tmp/notes'",
        "COPY notes FROM PROGRAM 'id'",
        "SELECT lo_import('/etc/passwd')",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'freehold_admin' LIMIT 1",
        "SELECT rolpassword FROM pg_authid",
    ] {
        assert_eq!(refusal(&db, refused).await.as_deref(), Some("42501"), "{refused}");
    }
    // No way to another database from within this one.
    assert_eq!(refusal(&db, "SELECT dblink_connect('dbname=postgres')").await.as_deref(), Some("42883"));
    // What everybody may call stays in its own database, and nobody can take it from PUBLIC but a superuser: large objects
    // go with the database, and a notification is heard there alone.
    db.execute_unprepared("SELECT lo_unlink(lo_create(0)); SELECT pg_notify('x', 'y')").await.unwrap();
    // The server ends what takes longer; of the shortest that the test has patience for, seen.
    let shown = Statement::from_string(db.get_database_backend(), "SHOW statement_timeout");
    let timeout: String = db.query_one_raw(shown).await.unwrap().unwrap().try_get_by_index(0).unwrap();
    assert_eq!(timeout, "30s");
    let transaction = db.begin().await.unwrap();
    transaction.execute_unprepared("SET LOCAL statement_timeout = 20").await.unwrap();
    assert_eq!(refusal(&transaction, "SELECT pg_sleep(600)").await.as_deref(), Some("57014"));
    transaction.rollback().await.unwrap();
    let admin = std::env::var("FREEHOLD_TEST_POSTGRES_URL").unwrap();
    let registry = format!("registry_{}", Uuid::new_v4().simple());
    let mut wanted = url::Url::parse(&admin).unwrap();
    wanted.set_path(&registry);
    ensure_database(&admin.clone().into(), &String::from(wanted).into()).await.unwrap();
    let template = DatabaseName::generate(&mark(), &mut rand::rng());
    engine.create_database(&template).await.unwrap();
    engine.make_template(&template).await.unwrap();
    // A template lets nobody in at all.
    for (elsewhere, refusal) in
        [(foreign.as_str(), "42501"), (registry.as_str(), "42501"), (template.as_str(), "55000")]
    {
        let mut url = url::Url::parse(url.expose_secret()).unwrap();
        url.set_path(elsewhere);
        // Without a pool, which tries again.
        let refused = <sea_orm::sqlx::PgConnection as sea_orm::sqlx::Connection>::connect(url.as_str()).await;
        let refused = refused.expect_err(elsewhere);
        let code = refused.as_database_error().and_then(sea_orm::sqlx::error::DatabaseError::code);
        assert_eq!(code.as_deref(), Some(refusal), "{elsewhere}: {refused}");
    }
    // What a server has from the start is open to everybody until a superuser closes it, as `check` says in the log. There is
    // nothing in it, and nothing can be brought into it.
    for open in ["postgres", "template1"] {
        let mut url = url::Url::parse(url.expose_secret()).unwrap();
        url.set_path(open);
        let inside = alone(url.as_str()).await;
        for refused in [
            "CREATE TABLE t (id int)",
            "CREATE SCHEMA x",
            "SELECT pg_read_file('postgresql.conf')",
            "COPY (SELECT 1) TO '/tmp/x'",
            "SELECT rolpassword FROM pg_authid",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'freehold_admin' LIMIT 1",
        ] {
            assert_eq!(refusal(&inside, refused).await.as_deref(), Some("42501"), "{open}: {refused}");
        }
        inside.close().await.unwrap();
    }
    for role in [foreign.role(Slot::A), "freehold_rw".to_owned(), "postgres".to_owned()] {
        let taken = db.execute_unprepared(&format!("SET ROLE \"{role}\"")).await;
        assert!(taken.is_err() || role == "freehold_rw", "{role}");
    }
    db.close().await.unwrap();
    for name in [name, foreign, template] {
        engine.drop_database(&name).await.unwrap();
    }
    let db = service::pool::open(admin).await.unwrap();
    db.execute_unprepared(&format!("DROP DATABASE \"{registry}\"")).await.unwrap();
    db.close().await.unwrap();
}

/// Whoever began it died before it was closed to others, and by then there is a template.
#[tokio::test]
async fn a_database_that_was_begun_without_a_template_is_whole_in_the_end() {
    let engine = postgres();
    engine.check().await.unwrap();
    let template = DatabaseName::generate(&mark(), &mut rand::rng());
    engine.create_database(&template).await.unwrap();
    engine.make_template(&template).await.unwrap();
    let (tenant, name) = (new_tenant(), DatabaseName::generate(&mark(), &mut rand::rng()));
    let admin = service::pool::open(std::env::var("FREEHOLD_TEST_POSTGRES_URL").unwrap()).await.unwrap();
    admin.execute_unprepared(&format!("CREATE DATABASE {name} OWNER freehold_owner TEMPLATE template0")).await.unwrap();
    engine.copy_database(&template, &name).await.unwrap();
    engine.create_role(&name, Slot::A, &password(), 4).await.unwrap();
    let entered = engine.enter(&name).await.unwrap();
    entered.migrate(&Notes, 1).await.unwrap();
    entered.stamp(tenant.id).await.unwrap();
    entered.leave().await.unwrap();
    let url = engine.url(&name, Slot::A, &password());
    let db = service::pool::open(url.expose_secret()).await.unwrap();
    db.execute_unprepared("INSERT INTO notes (text) VALUES ('x')").await.unwrap();
    db.close().await.unwrap();
    for name in [name, template] {
        engine.drop_database(&name).await.unwrap();
    }
    admin.close().await.unwrap();
}

#[tokio::test]
async fn a_database_whose_drop_was_cut_off_is_dropped_to_the_end() {
    let engine = postgres();
    engine.check().await.unwrap();
    let name = DatabaseName::generate(&mark(), &mut rand::rng());
    engine.create_database(&name).await.unwrap();
    assert!(!engine.is_invalid(&name).await.unwrap());
    let superuser = std::env::var("FREEHOLD_TEST_POSTGRES_SUPERUSER_URL").unwrap();
    let db = service::pool::open(superuser).await.unwrap();
    // As the server marks it.
    let marked = format!("UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{name}'");
    db.execute_unprepared(&marked).await.unwrap();
    db.close().await.unwrap();
    assert!(engine.is_invalid(&name).await.unwrap());
    assert!(drop_unless_anothers(engine.as_ref(), &name, None).await.unwrap());
    assert!(!engine.has_database(&name).await.unwrap());
}

#[tokio::test]
async fn a_sqlite_file_that_is_gone_is_not_replaced_by_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = folder.path().join("server");
    std::fs::create_dir(&server).unwrap();
    let engine =
        engine_for(EngineKind::Sqlite, &format!("sqlite://{}", server.display()).into(), None, worker()).unwrap();
    let tenant = new_tenant();
    let name = build_twice(engine.as_ref(), &tenant).await;
    let home = server.join(name.as_str());
    for entry in std::fs::read_dir(&home).unwrap() {
        let mode = std::os::unix::fs::MetadataExt::mode(&entry.unwrap().metadata().unwrap());
        assert_eq!(mode & 0o077, 0, "only we may read it");
    }
    std::fs::remove_dir_all(&home).unwrap();
    assert!(engine.enter(&name).await.is_err());
    std::fs::remove_dir(&server).unwrap();
    assert!(engine.create_database(&name).await.is_err(), "a folder whose disk is not mounted");
    assert!(!server.exists());
}

#[tokio::test]
async fn replicas_check_a_sqlite_server_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().display());
    let engine = engine_for(EngineKind::Sqlite, &url.into(), None, worker()).unwrap();
    let checks = (0..64).map(|_| Arc::clone(&engine)).map(|engine| tokio::spawn(async move { engine.check().await }));
    for check in checks.collect::<Vec<_>>() {
        check.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_as_a_wrong_admin_url() {
    let url = std::env::var("FREEHOLD_TEST_POSTGRES_URL").expect("run this by `cargo xtask test`");
    let mut url = url::Url::parse(&url).unwrap();
    url.set_password(Some("planted")).unwrap();
    let error =
        engine_for(EngineKind::Postgres, &String::from(url).into(), None, worker()).unwrap().check().await.unwrap_err();
    assert!(error.to_string().contains("check the server's admin URL"), "{error}");
    assert!(!format!("{error:?}").contains("planted"));
}

mod admin;
mod anchors;
mod fingerprint;
mod migrate;
mod rehearse;

#[test]
fn names_are_ours_and_opaque() {
    let name = DatabaseName::generate(&mark(), &mut rand::rng());
    assert_eq!(name.as_str().parse::<DatabaseName>().unwrap(), name);
    for hostile in ["", "fh_", "acme", "fh_\"; DROP TABLE x; --aaaa", "fh_ABCDEFGHIJKLMNOPQRSTUVWX"] {
        assert!(hostile.parse::<DatabaseName>().is_err(), "{hostile}");
    }
}

#[test]
fn a_url_of_another_kind_is_refused_without_being_told() {
    for (kind, url) in [
        (EngineKind::Postgres, "mysql://planted@h/d"),
        // A query that would override the runtime role in every tenant's URL.
        (EngineKind::Postgres, "postgres://h/d?user=admin&password=planted"),
        (EngineKind::Postgres, "postgres://admin:planted@h/d?password=planted"),
        (EngineKind::Postgres, "postgres://admin@h/d?sslpassword=planted"),
        (EngineKind::Postgres, "postgres://admin:planted@%2Fvar%2Frun/d"),
        (EngineKind::Sqlite, "sqlite://planted"),
        (EngineKind::Sqlite, "postgres://planted@h/d"),
    ] {
        let error = engine_for(kind, &url.to_owned().into(), None, worker()).err().unwrap().to_string();
        assert!(!error.contains("planted"), "{error}");
    }
}
