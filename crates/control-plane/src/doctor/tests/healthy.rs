//! Where nothing is wrong, nothing is found: not of what is being made, nor of what is nobody's business.

use chrono::Utc;
use sea_orm::{ActiveModelTrait, ActiveValue::Set};
use tenancy::Status;

use super::*;

on_both! {
    a_healthy_fleet_has_no_findings,
    what_is_made_and_deleted_meanwhile_is_no_finding,
    what_waits_for_its_tenant_is_no_finding,
    other_names_are_nobodys_business,
    many_strays_are_told_page_by_page,
}

async fn a_healthy_fleet_has_no_findings(stage: &Stage) {
    let (acme, _) = built(stage, "acme").await;
    let (globex, _) = built(stage, "globex").await;
    rotated(stage, acme.id).await;
    set_tenant(stage, globex.id, tenants::Column::Status, "suspended").await;
    let (gone, _) = built(stage, "gone").await;
    {
        let _runner = Running::on(stage);
        set_tenant(stage, gone.id, tenants::Column::Status, "deleting").await;
        let operation = order(stage, crate::provision::Kind::Delete, gone.id).await;
        assert_eq!(wait(&stage.plane, operation.id, PATIENCE).await.unwrap().state, "done");
    }
    let (findings, checked) = look(stage, true).await;
    assert_eq!(kinds(&findings), [], "{findings:#?}");
    assert_eq!((checked.servers, checked.databases, checked.tenants), (1, 2, 3));
}

async fn what_is_made_and_deleted_meanwhile_is_no_finding(stage: &Stage) {
    let (first, _) = built(stage, "first").await;
    let _runner = Running::on(stage);
    let mut operations = Vec::new();
    for slug in ["one", "two", "three"] {
        operations.push(stage.create(slug, None).await);
    }
    operations.push(order(stage, crate::provision::Kind::Rotate, first.id).await);
    let mut looks = 0;
    loop {
        let (findings, _) = look(stage, true).await;
        assert_eq!(kinds(&findings), [], "{findings:#?}");
        looks += 1;
        let mut open = 0;
        for operation in &operations {
            open += usize::from(wait(&stage.plane, operation.id, Duration::ZERO).await.unwrap().finished_at.is_none());
        }
        if open > 0 {
            continue;
        }
        if operations.len() > 4 {
            break;
        }
        let deleted = operations[0].clone();
        operations.push(stage.delete(&deleted, Status::Active).await);
        stage.plane.wake.ring();
    }
    assert!(looks > 2, "it was looked while the work went on");
}

async fn what_waits_for_its_tenant_is_no_finding(stage: &Stage) {
    let db = stage.plane.registry.db();
    let names: [DatabaseName; 2] =
        std::array::from_fn(|_| DatabaseName::generate(stage.plane.registry.mark(), &mut rand::rng()));
    let budget = 20;
    for name in &names {
        engine(stage).await.create_database(name).await.unwrap();
        engine(stage).await.create_role(name, Slot::A, &"unread".to_owned().into(), budget).await.unwrap();
    }
    let template = templates::ActiveModel {
        server_id: Set(stage.server),
        schema_version: Set(2),
        name: Set(names[0].to_string()),
        state: Set("ready".to_owned()),
        lease_holder: Set(None),
        lease_until: Set(None),
        created_at: Set(Utc::now()),
    };
    template.insert(db).await.unwrap();
    let warm = warm_databases::ActiveModel {
        name: Set(names[1].to_string()),
        id: Set(Uuid::now_v7()),
        server_id: Set(stage.server),
        schema_version: Set(2),
        state: Set("ready".to_owned()),
        sealed_url: Set(String::new()),
        lease_holder: Set(None),
        lease_until: Set(None),
        created_at: Set(Utc::now()),
    };
    warm.insert(db).await.unwrap();
    assert_eq!(kinds(&look(stage, true).await.0), []);

    templates::Entity::delete_many().exec(db).await.unwrap();
    warm_databases::Entity::delete_many().exec(db).await.unwrap();
    assert_eq!(kinds(&found(stage).await), [Kind::DatabaseWithoutTenant; 2]);
    let (fixed, _) = look(stage, true).await;
    assert!(fixed.len() == 2 && fixed.iter().all(|it| it.is_fixed), "{fixed:#?}");
}

async fn other_names_are_nobodys_business(stage: &Stage) {
    let other = format!("other_{}", Uuid::new_v4().simple());
    if stage.kind() == EngineKind::Sqlite {
        std::fs::create_dir(stage.folder.path().join("databases").join(&other)).unwrap();
        std::fs::create_dir(stage.folder.path().join("databases/fh_short")).unwrap();
        assert_eq!(kinds(&look(stage, true).await.0), []);
        return;
    }
    // Of the server's own list, for this is what is not to be on it.
    let admin = stage.admin().await;
    admin.execute_unprepared(&format!("CREATE DATABASE \"fh_{other}\"; ")).await.unwrap();
    admin.execute_unprepared(&format!("CREATE ROLE \"fh_{other}_a\"")).await.unwrap();
    let inventory = engine(stage).await.inventory().await.unwrap();
    assert!(inventory.databases.iter().all(|name| !name.as_str().contains("other")));
    assert!(inventory.roles.iter().all(|(name, _)| !name.as_str().contains("other")));
    admin.execute_unprepared(&format!("DROP DATABASE \"fh_{other}\"")).await.unwrap();
    admin.execute_unprepared(&format!("DROP ROLE \"fh_{other}_a\"")).await.unwrap();
    admin.close().await.unwrap();
}

async fn many_strays_are_told_page_by_page(stage: &Stage) {
    if stage.kind() == EngineKind::Postgres {
        return;
    }
    let mut names = Vec::new();
    for _ in 0..=AT_MOST {
        let name = DatabaseName::generate(stage.plane.registry.mark(), &mut rand::rng());
        std::fs::create_dir(stage.folder.path().join("databases").join(name.as_str())).unwrap();
        names.push(name.to_string());
    }
    names.sort();
    let first = Doctor::new(stage.plane.clone()).look(Position::default()).await.unwrap();
    assert_eq!((first.findings.len(), first.checked.databases), (AT_MOST, AT_MOST + 1));
    assert!(matches!(first.next, Some(Position::Server { .. })));
    let (all, checked) = look(stage, false).await;
    assert_eq!((checked.servers, checked.databases), (1, AT_MOST + 1), "none is counted twice");
    assert_eq!(all.into_iter().map(|it| it.database.unwrap()).collect::<Vec<_>>(), names);
    // One operation drops all of the server, whatever page they are on.
    assert!(look(stage, true).await.0.iter().all(|it| it.is_fixed));
    assert_eq!(kinds(&found(stage).await), []);
}
