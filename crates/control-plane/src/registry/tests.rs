//! A registry of an older version, brought up to date: nothing that it holds is lost. Nor is what is written to it while requests are
//! given up.

use std::future::poll_fn;
use std::task::Poll;

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ConnectOptions, ConnectionTrait, EntityTrait, Statement, TransactionOptions,
};
use sea_orm_migration::MigratorTrait;
use uuid::Uuid;

use super::connection::RegistryDb;
use super::entities::{operation_steps, operations, tenants};
use crate::engine::ensure_database;

/// The last version in which an operation was always on a tenant.
const BEFORE: u32 = 6;

async fn operations_keep_their_steps_and_may_be_on_a_server(url: String) {
    let db = service::pool::open(url).await.unwrap();
    registry_migrations::Migrator::up(&db, Some(BEFORE)).await.unwrap();
    let (tenant, server, operation) = (Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7());
    // What a driver makes of an id differs; the old version's rows are written by it too.
    let ids = [tenant, server, operation].map(|id| match db.get_database_backend() {
        sea_orm::DbBackend::Sqlite => format!("x'{}'", id.simple()),
        _ => format!("'{id}'"),
    });
    let [tenant_id, server_id, operation_id] = &ids;
    let at = "'2026-01-01 00:00:00+00:00'";
    for sql in [
        "INSERT INTO plans (name, window_seconds, connections, concurrency) VALUES ('free', 60, 2, 2)".to_owned(),
        format!(
            "INSERT INTO servers (id, name, engine, region, state, capacity, connection_budget, sealed_admin_url, \
             generation, created_at) VALUES ({server_id}, 'one', 'sqlite', 'eu', 'open', 9, 9, 'x', 1, {at})"
        ),
        format!(
            "INSERT INTO tenants (id, slug, name, status, plan, schema_version, generation, revision, version, created_at, \
             updated_at) VALUES ({tenant_id}, 'acme', 'Acme', 'active', 'free', 1, 1, 1, 1, {at}, {at})"
        ),
        format!(
            "INSERT INTO operations (id, kind, tenant_id, state, fence, run_after, created_at, note, is_forced) \
             VALUES ({operation_id}, 'rotate', {tenant_id}, 'running', 3, {at}, {at}, 'kept', true)"
        ),
        format!(
            "INSERT INTO operation_steps (operation_id, position, name, state, attempts) \
             VALUES ({operation_id}, 1, 'new_url', 'done', 2)"
        ),
    ] {
        db.execute_unprepared(&sql).await.unwrap();
    }
    registry_migrations::Migrator::up(&db, None).await.unwrap();
    let kept = operations::Entity::find_by_id(operation).one(&db).await.unwrap().unwrap();
    assert_eq!((kept.tenant_id, kept.server_id, kept.fence), (Some(tenant), None, 3));
    assert_eq!((kept.note.as_deref(), kept.is_forced, kept.state.as_str()), (Some("kept"), true, "running"));
    let named = tenants::Entity::find_by_id(tenant).one(&db).await.unwrap().unwrap();
    assert_eq!(named.slug_since, Some(named.created_at), "the first that its slug can be its own");
    let steps = operation_steps::Entity::find().all(&db).await.unwrap();
    assert!(steps.len() == 1 && steps[0].operation_id == operation && steps[0].attempts == 2, "{steps:?}");
    let on_server = |state: &str| operations::ActiveModel {
        id: Set(Uuid::now_v7()),
        kind: Set("fix".to_owned()),
        tenant_id: Set(None),
        server_id: Set(Some(server)),
        state: Set(state.to_owned()),
        ..operations::ActiveModel::from(kept.clone())
    };
    on_server("pending").insert(&db).await.unwrap();
    on_server("running").insert(&db).await.unwrap();
    assert!(on_server("running").insert(&db).await.is_err(), "one at a time is at work on a server");
    let mut second = operations::ActiveModel::from(kept);
    second.id = Set(Uuid::now_v7());
    assert!(second.insert(&db).await.is_err(), "and one of a tenant");
    let orphan = operation_steps::ActiveModel { operation_id: Set(Uuid::now_v7()), ..steps[0].clone().into() };
    assert!(orphan.insert(&db).await.is_err(), "a step is an operation's");
    db.close().await.unwrap();
}

/// A transaction is begun and given up at each of its steps. What is written afterwards on the same connection stays.
async fn a_transaction_that_was_given_up_as_it_began_takes_nothing_with_it(url: String) {
    let mut options = ConnectOptions::new(url.clone());
    options.max_connections(1);
    let (db, other) = (RegistryDb::connect(options).await.unwrap(), service::pool::open(url).await.unwrap());
    db.execute_unprepared("CREATE TABLE notes (number INTEGER)").await.unwrap();
    for number in 1..=20 {
        let mut begin = Box::pin(db.begin_with_options(TransactionOptions::default()));
        for _ in 0..number {
            if poll_fn(|context| Poll::Ready(begin.as_mut().poll(context).is_ready())).await {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(begin);
        db.execute_unprepared(&format!("INSERT INTO notes VALUES ({number})")).await.unwrap();
        let count = Statement::from_string(other.get_database_backend(), "SELECT count(*) FROM notes");
        let count: i64 = other.query_one_raw(count).await.unwrap().unwrap().try_get_by_index(0).unwrap();
        assert_eq!(count, number, "a row is in a transaction that was left open");
    }
    db.unwatched().clone().close().await.unwrap();
    other.close().await.unwrap();
}

mod on_sqlite {
    fn url(folder: &tempfile::TempDir) -> String {
        format!("sqlite://{}?mode=rwc", folder.path().join("registry.db").display())
    }

    #[tokio::test]
    async fn operations_keep_their_steps_and_may_be_on_a_server() {
        let folder = tempfile::tempdir().unwrap();
        super::operations_keep_their_steps_and_may_be_on_a_server(url(&folder)).await;
    }

    #[tokio::test]
    async fn a_transaction_that_was_given_up_as_it_began_takes_nothing_with_it() {
        let folder = tempfile::tempdir().unwrap();
        super::a_transaction_that_was_given_up_as_it_began_takes_nothing_with_it(url(&folder)).await;
    }
}

mod on_postgres {
    use super::*;

    async fn with_a_database(test: impl AsyncFnOnce(String)) {
        let admin = std::env::var("FREEHOLD_TEST_POSTGRES_URL")
            .expect("run this by `cargo xtask test`, which starts a Postgres");
        let name = format!("registry_{}", Uuid::new_v4().simple());
        let mut url = url::Url::parse(&admin).unwrap();
        url.set_path(&name);
        let url = String::from(url);
        ensure_database(&admin.clone().into(), &url.clone().into()).await.unwrap();
        test(url).await;
        let admin = service::pool::open(admin).await.unwrap();
        admin.execute_unprepared(&format!("DROP DATABASE \"{name}\"")).await.unwrap();
        admin.close().await.unwrap();
    }

    #[tokio::test]
    async fn operations_keep_their_steps_and_may_be_on_a_server() {
        with_a_database(super::operations_keep_their_steps_and_may_be_on_a_server).await;
    }

    #[tokio::test]
    async fn a_transaction_that_was_given_up_as_it_began_takes_nothing_with_it() {
        with_a_database(super::a_transaction_that_was_given_up_as_it_began_takes_nothing_with_it).await;
    }
}
