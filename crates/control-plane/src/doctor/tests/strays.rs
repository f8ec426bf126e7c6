//! What is on a server and in nobody's registry, and servers that cannot be looked at.

use tenancy::{TenantId, stamp};

use super::*;

on_both! {
    a_database_that_was_half_made_is_dropped,
    a_database_that_is_stamped_or_seeded_is_told_and_never_dropped,
    a_server_that_does_not_answer_is_told,
    an_admin_url_that_does_not_open_is_told,
}

async fn stray(stage: &Stage) -> DatabaseName {
    let name = DatabaseName::generate(stage.plane.registry.mark(), &mut rand::rng());
    engine(stage).await.create_database(&name).await.unwrap();
    name
}

async fn a_database_that_was_half_made_is_dropped(stage: &Stage) {
    let name = stray(stage).await;
    let fixed = assert_fixed(stage, Kind::DatabaseWithoutTenant).await;
    assert_eq!((fixed.server.as_deref(), fixed.database.as_deref()), (Some("one"), Some(name.as_str())));
    assert_eq!(fixed.tenant, None);
    assert!(engine(stage).await.identify(&name).await.unwrap().is_none());
}

async fn a_database_that_is_stamped_or_seeded_is_told_and_never_dropped(stage: &Stage) {
    let (acme, database) = built(stage, "acme").await;
    let (gone, _) = built(stage, "gone").await;
    let name = stray(stage).await;
    write(stage, name.as_str(), stamp::CREATE).await;
    let unknown = TenantId::generate().as_uuid();
    for (id, tenant, said) in [
        (unknown, None, "does not know"),
        (acme.id, Some("acme".to_owned()), "is not this one"),
        (gone.id, Some("gone".to_owned()), "is not this one"),
    ] {
        let stamped = format!("DELETE FROM freehold_stamp; INSERT INTO freehold_stamp VALUES (1, '{id}')");
        write(stage, name.as_str(), &stamped).await;
        let left = assert_left(stage, Kind::DatabaseWithoutTenant).await;
        assert_eq!(left.tenant, tenant);
        assert!(left.detail.contains(said), "{left:?}");
    }
    // The registry was restored from a backup that is older than its database: its only data is in the stray.
    write(stage, name.as_str(), &format!("UPDATE freehold_stamp SET tenant_id = '{}'", gone.id)).await;
    let row = database_of(stage, gone.id).await.unwrap();
    databases::Entity::delete_by_id(row.name.as_str()).exec(stage.plane.registry.db()).await.unwrap();
    engine(stage).await.drop_database(&row.name.parse().unwrap()).await.unwrap();
    set_tenant(stage, gone.id, tenants::Column::Status, "deleted").await;
    let left = assert_left(stage, Kind::DatabaseWithoutTenant).await;
    assert_eq!(left.tenant, Some(gone.id.to_string()), "a deleted tenant has no slug of its own any more");

    let seeded =
        "DROP TABLE freehold_stamp; CREATE TABLE freehold_seed (id INTEGER); INSERT INTO freehold_seed VALUES (1)";
    write(stage, name.as_str(), seeded).await;
    let left = assert_left(stage, Kind::DatabaseWithoutTenant).await;
    assert!(left.detail.contains("there is data in it"), "{left:?}");
    engine(stage).await.drop_database(&name).await.unwrap();
    assert!(engine(stage).await.identify(&database.name.parse().unwrap()).await.unwrap().is_some());
}

async fn a_server_that_does_not_answer_is_told(stage: &Stage) {
    built(stage, "acme").await;
    let gone = match stage.kind() {
        EngineKind::Sqlite => "sqlite:///nowhere/at/all".to_owned(),
        EngineKind::Postgres => {
            // Nobody listens there once the listener is dropped.
            let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            format!("postgres://planted:planted@127.0.0.1:{port}/postgres")
        }
    };
    stage.move_server(&gone.into()).await;
    let findings = found(stage).await;
    // Told where the servers are looked at, and on the page of its tenants: it may have gone in between.
    assert_eq!(kinds(&findings), [Kind::ServerUnreachable; 2], "{findings:#?}");
    assert!(findings.iter().all(|it| it.server.as_deref() == Some("one") && !it.detail.contains("planted")));
}

async fn an_admin_url_that_does_not_open_is_told(stage: &Stage) {
    built(stage, "acme").await;
    servers::Entity::update_many()
        .col_expr(servers::Column::Generation, Expr::value(7))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
    let told = only(stage, Kind::AdminUrlDoesNotOpen).await;
    assert_eq!(told.server.as_deref(), Some("one"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_role_without_a_database_is_dropped_on_postgres() {
    on_postgres(async |stage| {
        let name = DatabaseName::generate(stage.plane.registry.mark(), &mut rand::rng());
        let admin = stage.admin().await;
        admin.execute_unprepared(&format!("CREATE ROLE \"{}\" LOGIN", name.role(Slot::B))).await.unwrap();
        let fixed = assert_fixed(stage, Kind::RoleLeftOver).await;
        assert!(fixed.detail.contains(&name.role(Slot::B)), "{fixed:?}");

        // What the role still has somewhere keeps it.
        let (_, database) = built(stage, "acme").await;
        admin.execute_unprepared(&format!("CREATE ROLE \"{}\" LOGIN", name.role(Slot::A))).await.unwrap();
        let granted = format!("GRANT SELECT ON notes TO \"{}\"", name.role(Slot::A));
        write(stage, &database.name, &granted).await;
        let (left, _) = look(stage, true).await;
        assert_eq!(kinds(&left), [Kind::RoleLeftOver, Kind::PrivilegesDrifted], "{left:#?}");
        assert!(left[0].detail.contains("Fixing it failed"), "{left:#?}");
        write(stage, &database.name, &granted.replace("GRANT", "REVOKE").replace(" TO ", " FROM ")).await;
        assert_fixed(stage, Kind::RoleLeftOver).await;
        admin.close().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_made_database_that_somebody_is_in_is_left_on_postgres() {
    on_postgres(async |stage| {
        let name = stray(stage).await;
        let somebody = inside(stage, name.as_str()).await;
        let left = assert_left(stage, Kind::DatabaseWithoutTenant).await;
        assert!(left.detail.contains("somebody is in it"), "{left:?}");
        somebody.close().await.unwrap();
        // Its session ends a moment after it was closed.
        while engine(stage).await.identify(&name).await.unwrap().unwrap().is_entered {
            tokio::task::yield_now().await;
        }
        assert_fixed(stage, Kind::DatabaseWithoutTenant).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_between_two_reads_is_no_finding_on_postgres() {
    on_postgres(async |stage| {
        let (acme, database) = built(stage, "acme").await;
        let name: DatabaseName = database.name.parse().unwrap();
        let admin = stage.admin().await;
        // A deletion that is half done: the database is gone, its roles are not.
        admin.execute_unprepared(&format!("DROP DATABASE \"{name}\"")).await.unwrap();
        let between = std::sync::Arc::new(Between::default());
        let mut doctor = Doctor::new(stage.plane.clone());
        doctor.between = Some(std::sync::Arc::clone(&between));
        let looking = tokio::spawn(async move { doctor.look(Position::default()).await.unwrap() });
        between.reached.notified().await;
        engine(stage).await.drop_database(&name).await.unwrap();
        databases::Entity::delete_by_id(name.as_str()).exec(stage.plane.registry.db()).await.unwrap();
        set_tenant(stage, acme.id, tenants::Column::Status, "deleted").await;
        between.go_on.notify_one();
        assert_eq!(kinds(&looking.await.unwrap().findings), []);
        admin.close().await.unwrap();
    })
    .await;
}
