//! Anchors on a real server, by an admin that is no superuser.

use std::time::Instant;

use sea_orm::sqlx::error::DatabaseError;
use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::{self, ConnectOptions as _, Connection as _, PgConnection, Row as _};

use super::*;

/// A session by this URL, of this name; or how the server calls its refusal.
async fn session(url: &SecretString, name: &str) -> Result<PgConnection, String> {
    let options: PgConnectOptions = url.expose_secret().parse().unwrap();
    let connected = options.application_name(name).connect().await;
    connected.map_err(|error| {
        let code = error.as_database_error().and_then(DatabaseError::code);
        code.unwrap_or_else(|| panic!("{error}")).into_owned()
    })
}

async fn one<T>(session: &mut PgConnection, sql: &'static str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    sqlx::query(sql).fetch_one(session).await.unwrap().get(0)
}

async fn an_anchor_is_one_session_and_none_begins_once_it_is_barred(engine: &dyn Engine) {
    let holder = Uuid::new_v4();
    let [first, second] = [1, 2].map(|number| AnchorRole { holder, number });
    for role in [first, first, second] {
        engine.make_anchor(role, &password()).await.unwrap();
    }
    let third = AnchorRole { holder, number: 3 };
    assert_eq!(engine.missing_anchors(&[first, second, third]).await.unwrap(), [third]);
    let [first_url, second_url] = [first, second].map(|role| engine.anchor_url(role, &password()).unwrap());
    let mut anchor = session(&first_url, "anchor").await.unwrap();
    assert_eq!(one::<String>(&mut anchor, "SHOW idle_session_timeout").await, "10s");
    assert_eq!(session(&first_url, "anchor").await.err().as_deref(), Some("53300"), "one for each");
    for _ in 0..2 {
        engine.bar_anchors(first).await.unwrap();
    }
    assert_eq!(one::<i32>(&mut anchor, "SELECT 1").await, 1, "what is there goes on");
    anchor.close().await.unwrap();
    assert_eq!(session(&first_url, "anchor").await.err().as_deref(), Some("28P01"));
    session(&second_url, "anchor").await.expect("a later one is not barred").close().await.unwrap();
    engine.bar_anchors(second).await.unwrap();
    assert!(session(&second_url, "anchor").await.is_err());
}

#[tokio::test]
async fn an_anchor_is_one_session_whoever_may_enter_the_admins_database() {
    an_anchor_is_one_session_and_none_begins_once_it_is_barred(postgres().as_ref()).await;
    // The same where the admin's database is closed to others.
    let superuser = admin::superuser().await;
    let url = url::Url::parse(&std::env::var("FREEHOLD_TEST_POSTGRES_URL").unwrap()).unwrap();
    let (database, user) = (format!("closed_{}", Uuid::new_v4().simple()), url.username());
    for sql in [
        format!("CREATE DATABASE {database}"),
        format!("GRANT CONNECT ON DATABASE {database} TO \"{user}\""),
        format!("REVOKE CONNECT, TEMPORARY ON DATABASE {database} FROM PUBLIC"),
    ] {
        superuser.execute_unprepared(&sql).await.unwrap();
    }
    let mut closed = url.clone();
    closed.set_path(&database);
    let engine = engine_for(EngineKind::Postgres, &String::from(closed).into(), None, worker()).unwrap();
    let role = AnchorRole { holder: Uuid::new_v4(), number: 1 };
    let refused = engine.make_anchor(role, &password()).await.unwrap_err().to_string();
    let grant = format!("GRANT CONNECT ON DATABASE \"{database}\" TO \"{user}\" WITH GRANT OPTION");
    assert!(refused.contains(&grant), "{refused}");
    engine.bar_anchors(role).await.unwrap();
    superuser.execute_unprepared(&grant).await.unwrap();
    an_anchor_is_one_session_and_none_begins_once_it_is_barred(engine.as_ref()).await;
    drop(engine);
    superuser.execute_unprepared(&format!("DROP DATABASE {database} WITH (FORCE)")).await.unwrap();
    superuser.close().await.unwrap();
}

#[tokio::test]
async fn an_admin_ends_sessions_by_their_name_and_has_no_more_rights_afterwards() {
    let engine = postgres();
    engine.check().await.unwrap();
    let name = build_twice(engine.as_ref(), &new_tenant()).await;
    let url = engine.url(&name, Slot::A, &password());
    let (gone, other) = (format!("gone {}", Uuid::new_v4().simple()), format!("other {}", Uuid::new_v4().simple()));
    let [mut left, mut stays] = [session(&url, &gone).await.unwrap(), session(&url, &other).await.unwrap()];
    engine.end_sessions_named(&gone).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !engine.sessions(std::slice::from_ref(&gone)).await.unwrap().by_name.is_empty() {
        assert!(Instant::now() < deadline, "it does not end");
    }
    assert!(left.ping().await.is_err());
    assert_eq!(one::<i32>(&mut stays, "SELECT 1").await, 1);
    stays.close().await.unwrap();
    let admin = service::pool::open(std::env::var("FREEHOLD_TEST_POSTGRES_URL").unwrap()).await.unwrap();
    let sql = format!("SELECT pg_has_role('{}', 'USAGE')", name.role(Slot::A));
    let row = admin.query_one_raw(Statement::from_string(admin.get_database_backend(), sql)).await.unwrap().unwrap();
    assert!(!row.try_get_by_index::<bool>(0).unwrap());
    admin.close().await.unwrap();
    engine.drop_database(&name).await.unwrap();
}
