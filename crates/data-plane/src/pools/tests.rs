//! Pools of real SQLite files: opened once, proven, shared, closed after their last user.

mod given_up;
mod turns;

use std::path::Path;

use futures_util::future::join_all;
use opentelemetry::metrics::{MeterProvider as _, noop::NoopMeterProvider};
use sea_orm::sqlx::Connection as _;
use sea_orm::{ConnectionTrait as _, TransactionSession as _, TransactionTrait as _};
use tenancy::feed::{FeedAnswer, FeedItem, RouteAnswer};
use tenancy::route::{Epoch, Revision, Route};
use tenancy::share::Share;
use tenancy::{Plan, Status, TenantId};
use uuid::Uuid;

use http::StatusCode;

use super::connection::Connection;
use super::*;
use crate::routes::RouteTable;

const EPOCH: Epoch = Epoch(Uuid::from_u128(7));

fn ring() -> KeyRing {
    let config = serde_json::json!({ "primary": "k", "keys": { "k": "dGVuYW50cy1rZXktb2YtdGhlLXRlc3RzLTMyLWJ5dGU=" } });
    KeyRing::new(&serde_json::from_value(config).unwrap()).unwrap()
}

/// An anchor with this URL.
fn anchor(url: &str) -> tenancy::share::Anchor {
    let id = Uuid::from_u128(9);
    let sealed_url = ring().seal(tenancy::share::Anchor::subject(id), &url.to_owned().into(), &mut rand::rng());
    tenancy::share::Anchor { id, sealed_url }
}

fn pools(max: u64) -> Pools {
    Pools::new(
        ring(),
        Uuid::nil(),
        &PoolsConfig { max, ..PoolsConfig::default() },
        &NoopMeterProvider::new().meter("test"),
    )
}

fn tenant(number: u128) -> TenantId {
    Uuid::from_u128(number).into()
}

fn route(number: u128, revision: u64, generation: u64, url: &str) -> Route {
    let mut route = Route {
        tenant: tenant(number),
        revision: Revision(revision),
        slug: "tenant".parse().unwrap(),
        hosts: vec![],
        status: Status::Active,
        plan: Plan::seeded().remove(0),
        config: std::collections::BTreeMap::new(),
        issuers: Vec::new(),
        tokens_from: None,
        slug_since: None,
        keys: vec![],
        schema_version: 1,
        server: "local".into(),
        generation,
        reconnects: 0,
        sealed_url: tenancy::seal::Sealed::from_stored("none"),
    };
    route.sealed_url = ring().seal(route.url_subject(), &url.to_owned().into(), &mut rand::rng());
    route
}

/// A database that is stamped for a tenant.
async fn database(folder: &Path, stamp: u128) -> String {
    let path = folder.join(format!("{stamp}.db"));
    let db = service::pool::open(format!("sqlite://{}?mode=rwc", path.display())).await.unwrap();
    db.execute_unprepared(tenancy::stamp::CREATE).await.unwrap();
    let insert = format!("INSERT INTO freehold_stamp VALUES (1, '{}')", tenant(stamp));
    db.execute_unprepared(&insert).await.unwrap();
    db.close().await.unwrap();
    format!("sqlite://{}", path.display())
}

/// A node that serves these tenants, all at revision 5.
fn table(routes: Vec<Route>) -> RouteTable {
    let table = RouteTable::new(100);
    let position = Revision(5);
    let reset = FeedAnswer { reset: true, ..FeedAnswer::without_news(EPOCH, position, 60) };
    table.apply(table.position(), reset, tokio::time::Instant::now());
    for route in routes {
        table.take(table.position(), &RouteAnswer { epoch: EPOCH, as_of: position, route: Some(route) });
    }
    table
}

async fn hear(table: &RouteTable, pools: &Pools, route: Route) {
    let (tenant, position) = (route.tenant, route.revision);
    let items = vec![FeedItem { tenant, revision: position, route: Some(route) }];
    let news = FeedAnswer { items, ..FeedAnswer::without_news(EPOCH, position, 60) };
    table.apply(table.position(), news, tokio::time::Instant::now());
    close(table, pools).await;
}

async fn close(table: &RouteTable, pools: &Pools) {
    for url in table.to_close() {
        pools.close(&url).await;
    }
}

async fn works(pool: &PoolUse) -> bool {
    pool.checkout().await.unwrap().test(Duration::from_secs(1)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_is_shared_and_replaced_with_its_generation_after_its_last_user() {
    let folder = tempfile::tempdir().unwrap();
    let url = database(folder.path(), 1).await;
    let (table, pools) = (table(vec![route(1, 5, 1, &url)]), pools(10));
    let served = table.get(tenant(1)).unwrap();
    let mut entered = join_all((0..64).map(|_| pools.of(&served))).await.into_iter().map(Result::unwrap);
    let first = entered.next().unwrap();
    assert!(entered.all(|other| Arc::ptr_eq(&other.0, &first.0)));
    hear(&table, &pools, route(1, 6, 2, &url)).await;
    let second = pools.of(&table.get(tenant(1)).unwrap()).await.unwrap();
    assert!(!Arc::ptr_eq(&first.0, &second.0));
    assert!(works(&first).await, "whoever has it may finish");
    drop(served);
    assert_eq!(table.applied(), Revision(5));
    drop(first);
    // Closing takes its time, and none of it is waited for by a clock.
    while table.applied() != Revision(6) {
        tokio::task::yield_now().await;
    }
    assert!(works(&second).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_that_is_dialled_with_a_replaced_url_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let url = database(folder.path(), 1).await;
    let (table, pools) = (table(vec![route(1, 5, 1, &url)]), pools(10));
    let late = table.get(tenant(1)).unwrap();
    hear(&table, &pools, route(1, 6, 2, &url)).await;
    drop(pools.of(&late).await.unwrap());
    drop(late);
    assert_eq!(table.applied(), Revision(5));
    while table.applied() != Revision(6) {
        close(&table, &pools).await;
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_replaced_serve_no_other_statement() {
    let folder = tempfile::tempdir().unwrap();
    let url = database(folder.path(), 1).await;
    let (table, pools) = (table(vec![route(1, 5, 1, &url)]), pools(10));
    let served = table.get(tenant(1)).unwrap();
    let old = pools.of(&served).await.unwrap();
    let (mut busy, idle) = (old.checkout().await.unwrap(), old.checkout().await.unwrap());
    drop(idle);
    assert_eq!((old.0.open(), old.0.count_idle()), (2, 1));
    hear(&table, &pools, Route { reconnects: 1, ..route(1, 6, 1, &url) }).await;
    assert_eq!((old.0.open(), old.0.count_idle()), (1, 0), "what was idle is closed at once");
    assert!(busy.test(Duration::from_secs(1)).await, "what is in use goes on");
    drop(busy);
    assert_eq!(old.0.open(), 0, "and is closed when it comes back");
    // Whoever is at work goes on with others, which stay.
    assert!(works(&old).await);
    assert_eq!((old.0.open(), old.0.count_idle()), (1, 1));
    let new = pools.of(&table.get(tenant(1)).unwrap()).await.unwrap();
    assert!(!Arc::ptr_eq(&old.0, &new.0) && works(&new).await);
    drop((served, old));
    while table.applied() != Revision(6) {
        tokio::task::yield_now().await;
    }
    assert!(works(&new).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_tenants_than_pools_are_all_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut routes = Vec::new();
    for number in 1..=12 {
        routes.push(route(number, 5, 1, &database(folder.path(), number).await));
    }
    let (table, pools) = (Arc::new(table(routes)), pools(2));
    let work = (1..=12).map(|number| {
        let (table, pools) = (Arc::clone(&table), pools.clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                let pool = pools.of(&table.get(tenant(number)).unwrap()).await.unwrap();
                assert!(works(&pool).await);
            }
        })
    });
    for done in join_all(work).await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_share_what_the_node_may_open_and_all_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let mut routes = Vec::new();
    for number in 1..=24 {
        routes.push(route(number, 5, 1, &database(folder.path(), number).await));
    }
    let table = Arc::new(table(routes));
    let config = PoolsConfig { sqlite_connections: std::num::NonZeroU32::new(3), ..PoolsConfig::default() };
    let pools = Pools::new(ring(), Uuid::nil(), &config, &NoopMeterProvider::new().meter("test"));
    let work = (1..=24).map(|number| {
        let (table, pools) = (Arc::clone(&table), pools.clone());
        tokio::spawn(async move {
            for _ in 0..20 {
                let pool = pools.of(&table.get(tenant(number)).unwrap()).await.unwrap();
                assert!(works(&pool).await);
                let server = pools.server("local", true);
                let counts = server.counts();
                assert!(counts.held + counts.closing <= 3, "{counts:?}");
            }
        })
    });
    for done in join_all(work).await {
        done.unwrap();
    }
    assert!(!pools.server("local", true).is_starving());
}

#[tokio::test]
async fn what_is_not_proven_to_be_the_tenants_is_refused_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = database(folder.path(), 2).await;
    let unstamped = folder.path().join("unstamped.db");
    let db = service::pool::open(format!("sqlite://{}?mode=rwc", unstamped.display())).await.unwrap();
    db.execute_unprepared("CREATE TABLE pets (id INTEGER)").await.unwrap();
    db.close().await.unwrap();
    let absent = folder.path().join("absent.db");
    let mut other_generation = route(1, 5, 1, &foreign);
    other_generation.generation = 2;
    // By a key that nodes do not have yet.
    let mut other_key = route(1, 5, 1, &foreign);
    let sealed = other_key.sealed_url.as_stored().to_owned();
    let (_, text) = sealed.trim_start_matches("fh1.").split_once('.').unwrap();
    other_key.sealed_url = tenancy::seal::Sealed::from_stored(format!("fh1.newer.{text}"));
    for (route, kind) in [
        (other_key, "key-missing"),
        (route(1, 5, 1, &foreign), "database-refused"),
        (route(1, 5, 1, &format!("sqlite://{}", unstamped.display())), "database-refused"),
        (other_generation, "database-refused"),
        (route(1, 5, 1, "mysql://planted:planted@127.0.0.1/x"), "database-refused"),
        (route(1, 5, 1, &format!("sqlite://{}", absent.display())), "database-unavailable"),
        (route(1, 5, 1, "postgres://planted:planted@127.0.0.1:1/x"), "database-unavailable"),
    ] {
        let pools = pools(10);
        pools.hear_shares(&[Share {
            server: "local".into(),
            grant: 1,
            connections: 10,
            connect_rate: 10,
            anchor: Some(anchor("postgres://planted:planted@127.0.0.1:1/x")),
        }]);
        let problem = pools.of(&table(vec![route]).get(tenant(1)).unwrap()).await.unwrap_err();
        assert_eq!((problem.kind(), problem.status()), (kind, StatusCode::SERVICE_UNAVAILABLE), "{problem:?}");
        assert!(!format!("{problem:?}").contains("planted"), "{problem:?}");
    }
    assert!(!absent.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_dial_answers_for_the_next_requests_for_a_moment() {
    for (moment, is_over) in [(Duration::from_hours(1), false), (Duration::from_nanos(1), true)] {
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("1.db");
        let table = table(vec![route(1, 5, 1, &format!("sqlite://{}", absent.display()))]);
        let mut pools = pools(10);
        pools.settings.failed_for = moment;
        let served = table.get(tenant(1)).unwrap();
        assert!(pools.of(&served).await.is_err());
        database(folder.path(), 1).await;
        assert_eq!(pools.of(&served).await.is_ok(), is_over, "after {moment:?}");
    }
}

/// A tenant that may have one connection, and its pool.
async fn alone(folder: &Path) -> (Pools, PoolUse) {
    let table = table(vec![route(1, 5, 1, &database(folder, 1).await)]);
    let config = PoolsConfig { sqlite_connections: std::num::NonZeroU32::new(1), ..PoolsConfig::default() };
    let pools = Pools::new(ring(), Uuid::nil(), &config, &NoopMeterProvider::new().meter("test"));
    let pool = pools.of(&table.get(tenant(1)).unwrap()).await.unwrap();
    (pools, pool)
}

#[tokio::test]
async fn a_connection_that_is_handed_to_a_statement_that_was_given_up_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (pools, pool) = alone(folder.path()).await;
    for _ in 0..3 {
        let held = pool.checkout().await.unwrap();
        let waiter = pool.0.enter(1).unwrap();
        let waiting = tokio::spawn(async move { waiter.checkout().await.is_ok() });
        // It has begun to wait.
        tokio::task::yield_now().await;
        // It is handed the connection, and ends before it can take it.
        drop(held);
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert!(works(&pool).await, "the connection is there for the next");
    }
    assert_eq!(pools.server("local", true).counts().held, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_idle_frees_memory_and_is_no_younger_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (pools, pool) = alone(folder.path()).await;
    let server = pools.server("local", true);
    let statement = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, tenancy::stamp::SELECT);
    for (idle_for, statements) in [(0, 1), (3, 0)] {
        let Ok(found) = pool.checkout().await.unwrap().send(&QueryOne(&statement)).await else { panic!("no answer") };
        assert!(found.is_some());
        let used = Instant::now();
        server.rest(used + Duration::from_secs(idle_for), &CancellationToken::new()).await;
        let mut live = pool.0.take_idle(Instant::now(), None).unwrap();
        assert!(live.used <= used);
        // The driver's thread counts its statements after it has answered: once it answers again, it has counted.
        live.connection.ping().await.unwrap();
        let Connection::Sqlite(connection, _) = &live.connection else { panic!("no file") };
        assert_eq!(connection.cached_statements_size(), statements);
        pool.0.give_back(live);
    }
    assert_eq!(server.counts().held, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_left_open_is_rolled_back_with_all_within_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_pools, pool) = alone(folder.path()).await;
    let db = crate::session::TenantDb::new(pool, Arc::<crate::uses::Uses>::default().begin_below(1).unwrap());
    let count = async || {
        let count = sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, "SELECT count(*) FROM t");
        db.query_one_raw(count).await.unwrap().unwrap().try_get_by_index::<i64>(0).unwrap()
    };
    db.execute_unprepared("CREATE TABLE t (n INTEGER)").await.unwrap();
    let outer = db.begin().await.unwrap();
    outer.execute_unprepared("INSERT INTO t VALUES (1)").await.unwrap();
    let inner = outer.begin().await.unwrap();
    inner.execute_unprepared("INSERT INTO t VALUES (2)").await.unwrap();
    // The other way round than they began.
    drop(outer);
    drop(inner);
    assert_eq!(count().await, 0);
    db.execute_unprepared("INSERT INTO t VALUES (3)").await.unwrap();
    assert_eq!(count().await, 1, "the connection is in no transaction any more");

    let outer = db.begin().await.unwrap();
    let inner = outer.begin().await.unwrap();
    inner.execute_unprepared("INSERT INTO t VALUES (4)").await.unwrap();
    assert!(outer.commit().await.is_err(), "what is within it has not ended");
    drop(inner);
    assert_eq!(count().await, 1);

    let outer = db.begin().await.unwrap();
    outer.execute_unprepared("INSERT INTO t VALUES (5)").await.unwrap();
    let inner = outer.begin().await.unwrap();
    inner.execute_unprepared("INSERT INTO t VALUES (6)").await.unwrap();
    inner.rollback().await.unwrap();
    outer.commit().await.unwrap();
    assert_eq!(count().await, 2, "what was committed, and nothing else");
}
