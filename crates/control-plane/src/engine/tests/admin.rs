//! The admin's way to its server: what it waits for, what it lacks, and whom it may not send away.

use sea_orm::DatabaseConnection;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::net::TcpListener;

use super::*;

/// It accepts, and never says a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_wait_for_a_silent_server_wait_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let silence = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            counted.fetch_add(1, SeqCst);
            kept.push(accepted);
        }
    });
    let url = format!("postgres://admin:password@127.0.0.1:{port}/postgres");
    let engine = engine_for(EngineKind::Postgres, &url.into(), None, worker()).unwrap();
    let waits = (0..8).map(|_| Arc::clone(&engine)).map(|engine| tokio::spawn(async move { engine.answers().await }));
    for wait in waits.collect::<Vec<_>>() {
        assert!(wait.await.unwrap().unwrap_err().is_unavailable());
    }
    assert_eq!(asked.load(SeqCst), 1, "one attempt was everybody's");
    assert!(engine.answers().await.unwrap_err().is_unavailable());
    assert_eq!(asked.load(SeqCst), 1, "what failed a moment ago is not tried for the next who comes");
    // Later it is: somebody who gives up does not keep the others from being let in.
    while asked.load(SeqCst) < 2 {
        let _ = tokio::time::timeout(Duration::from_millis(20), engine.answers()).await;
    }
    silence.abort();
}

pub(crate) async fn superuser() -> DatabaseConnection {
    service::pool::open(std::env::var("FREEHOLD_TEST_POSTGRES_SUPERUSER_URL").unwrap()).await.unwrap()
}

/// The tests' server by another role.
pub(crate) fn url_of(role: &str, password: &str, database: &str) -> SecretString {
    let mut url = url::Url::parse(&std::env::var("FREEHOLD_TEST_POSTGRES_URL").unwrap()).unwrap();
    url.set_username(role).unwrap();
    url.set_password(Some(password)).unwrap();
    url.set_path(database);
    String::from(url).into()
}

/// As its refusals tell, one after the other, it is made an admin that serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_names_the_statement_that_gives_what_is_missing() {
    postgres().check().await.unwrap();
    let superuser = superuser().await;
    let role = format!("admin_{}", Uuid::new_v4().simple());
    for sql in [
        format!("CREATE ROLE {role} LOGIN PASSWORD 'planted'"),
        format!("ALTER ROLE {role} SET default_transaction_read_only = on"),
        format!("CREATE DATABASE {role}"),
        format!("REVOKE ALL ON DATABASE {role} FROM PUBLIC"),
    ] {
        superuser.execute_unprepared(&sql).await.unwrap();
    }
    let nowhere = engine_for(EngineKind::Postgres, &url_of(&role, "planted", "nowhere"), None, worker()).unwrap();
    let refused = nowhere.check().await.unwrap_err().to_string();
    assert!(refused.contains("no database of the name"), "{refused}");
    let mut told = Vec::new();
    loop {
        let engine = engine_for(EngineKind::Postgres, &url_of(&role, "planted", &role), None, worker()).unwrap();
        let Err(refused) = engine.check().await else { break };
        assert!(!refused.is_unavailable() && !format!("{refused:?}").contains("planted"), "{refused:?}");
        let refused = refused.to_string();
        let at = ["GRANT ", "ALTER "].iter().filter_map(|word| refused.find(word)).min();
        let statement = &refused[at.unwrap_or_else(|| panic!("no statement in {refused}"))..];
        superuser.execute_unprepared(statement).await.unwrap();
        told.push(statement.replace('"', "").replace(&role, "ROLE"));
        assert!(told.len() < 9, "{told:?}");
    }
    assert_eq!(
        told[..3],
        [
            "GRANT CONNECT ON DATABASE ROLE TO ROLE",
            "ALTER ROLE ROLE SET default_transaction_read_only = off",
            "ALTER ROLE ROLE CREATEDB CREATEROLE",
        ]
    );
    // Since Postgres 16 the right to make roles is none to use those that another made.
    assert!(told[3..].iter().all(|it| it.starts_with("GRANT freehold_")), "{told:?}");
    for sql in [
        format!("DROP DATABASE {role}"),
        format!("DROP OWNED BY {role}"),
        format!("REASSIGN OWNED BY {role} TO CURRENT_USER"),
        format!("DROP ROLE {role}"),
    ] {
        superuser.execute_unprepared(&sql).await.unwrap();
    }
    superuser.close().await.unwrap();
}

/// A superuser's session is not for the admin to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_a_session_that_the_admin_may_not_end_is_dropped_once_that_is_over() {
    let engine = postgres();
    engine.check().await.unwrap();
    let tenant = new_tenant();
    let name = build_twice(engine.as_ref(), &tenant).await;
    let mut url = url::Url::parse(&std::env::var("FREEHOLD_TEST_POSTGRES_SUPERUSER_URL").unwrap()).unwrap();
    url.set_path(name.as_str());
    let foreign = service::pool::open(String::from(url)).await.unwrap();
    let own = service::pool::open(engine.url(&name, Slot::A, &password()).expose_secret()).await.unwrap();
    let refused = engine.drop_database(&name).await.unwrap_err();
    assert!(refused.is_unavailable() && refused.to_string().contains("is in it"), "{refused}");
    assert!(own.execute_unprepared("SELECT 1").await.is_err(), "those that it may end are ended");
    assert!(engine.has_database(&name).await.unwrap());
    foreign.close().await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while let Err(error) = engine.drop_database(&name).await {
        assert!(error.is_unavailable() && std::time::Instant::now() < deadline, "{error}");
    }
    assert!(!engine.has_database(&name).await.unwrap());
}
