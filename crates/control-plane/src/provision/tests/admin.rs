//! The rotation of a server's admin that broke off in its middle: nobody is kept waiting, and it ends by itself.

use sea_orm::{ActiveModelTrait, ActiveValue::Set, ConnectionTrait, EntityTrait, IntoActiveModel};
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::stage::{Stage, in_time};
use crate::api::servers::next_admin_url_subject;
use crate::engine::{EngineKind, new_password};
use crate::provision::faults::Faults;
use crate::registry::entities::{databases, servers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_of_an_admin_that_broke_off_ends_by_itself() {
    let stage = Stage::postgres().await;
    in_time(ends_by_itself(&stage)).await;
    stage.clear().await;
}

async fn ends_by_itself(stage: &Stage) {
    let superuser = service::pool::open(std::env::var("FREEHOLD_TEST_POSTGRES_SUPERUSER_URL").unwrap()).await.unwrap();
    let role = format!("admin_{}", Uuid::new_v4().simple());
    let made = format!(
        "CREATE ROLE {role} LOGIN CREATEDB CREATEROLE PASSWORD 'first'; \
         GRANT freehold_owner, freehold_rw TO {role} WITH ADMIN OPTION"
    );
    superuser.execute_unprepared(&made).await.unwrap();
    let mut url = url::Url::parse(stage.admin_url().expose_secret()).unwrap();
    url.set_username(&role).unwrap();
    url.set_password(Some("first")).unwrap();
    let url = String::from(url).into();
    let server = stage.add_server_at("own", "us", EngineKind::Postgres, 10, &url).await;
    let db = stage.plane.registry.db();
    let read = async || servers::Entity::find_by_id(server).one(db).await.unwrap().unwrap();
    // Killed before the server heard of it, and after.
    for (round, is_heard) in [false, true].into_iter().enumerate() {
        let before = read().await;
        let present = stage.plane.engine(&before).unwrap();
        let password = new_password(&mut rand::rng());
        let next = present.admin_url_with(&password).unwrap();
        let sealed = stage.plane.servers_ring.seal(next_admin_url_subject(&before), &next, &mut rand::rng());
        let mut row = before.clone().into_active_model();
        row.next_sealed_admin_url = Set(Some(sealed.as_stored().to_owned()));
        row.update(db).await.unwrap();
        if is_heard {
            present.set_admin_password(&password).await.unwrap();
        }
        // Whichever it has by then, work goes on.
        let operation = stage.create(&format!("acme-{round}"), Some("us")).await;
        let ended = stage.work_until_ended(&operation, &Faults::default()).await;
        assert_eq!((ended.state.as_str(), ended.error), ("done", None), "{is_heard}");
        stage.keep(0).await;
        let after = read().await;
        assert_eq!((after.next_sealed_admin_url.clone(), after.generation), (None, before.generation + 1));
        assert!(service::pool::open(next.expose_secret()).await.is_ok(), "it is the new one");
        let engine = stage.plane.engine(&after).unwrap();
        engine.answers().await.unwrap();
        for name in stage.names().await {
            engine.drop_database(&name.parse().unwrap()).await.unwrap();
        }
        databases::Entity::delete_many().exec(db).await.unwrap();
    }
    let gone = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    drop(superuser.execute_unprepared(&gone).await);
    superuser.close().await.unwrap();
}
