//! What a tenant lacks: each fault planted in one of two tenants, and found there alone.

use secrecy::SecretString;
use tenancy::seal::Sealed;

use super::*;
use crate::provision::url_subject;

on_both! {
    a_tenant_without_a_row_of_a_database_is_told,
    a_database_that_is_gone_is_told_and_not_made_anew,
    a_database_that_cannot_be_entered_is_told,
    a_stamp_that_is_missing_or_anothers_is_told_and_left,
    a_schema_version_is_recorded_upwards_alone,
    a_url_that_does_not_open_is_told,
    urls_that_disagree_are_told,
    a_server_that_disagrees_is_told,
}

async fn two(stage: &Stage) -> (tenants::Model, databases::Model) {
    built(stage, "globex").await;
    built(stage, "acme").await
}

fn assert_told_of(finding: &Finding, database: &databases::Model) {
    assert_eq!(
        (finding.server.as_deref(), finding.database.as_deref(), finding.tenant.as_deref()),
        (Some("one"), Some(database.name.as_str()), Some("acme"))
    );
}

async fn a_tenant_without_a_row_of_a_database_is_told(stage: &Stage) {
    let (tenant, database) = two(stage).await;
    let db = stage.plane.registry.db();
    databases::Entity::delete_by_id(database.name.as_str()).exec(db).await.unwrap();
    for is_fixing in [true, false] {
        let (findings, _) = look(stage, is_fixing).await;
        assert_eq!(kinds(&findings), [Kind::DatabaseWithoutTenant, Kind::TenantWithoutDatabase], "{findings:#?}");
        assert!(findings.iter().all(|it| !it.is_fixed && it.tenant.as_deref() == Some("acme")));
    }
    engine(stage).await.drop_database(&database.name.parse().unwrap()).await.unwrap();
    assert_eq!(kinds(&found(stage).await), [Kind::TenantWithoutDatabase]);
    // Nobody builds it either.
    set_tenant(stage, tenant.id, tenants::Column::Status, "provisioning").await;
    assert_eq!(kinds(&found(stage).await), [Kind::TenantWithoutDatabase]);
    order(stage, crate::provision::Kind::Create, tenant.id).await;
    assert_eq!(kinds(&found(stage).await), []);
}

async fn a_database_that_is_gone_is_told_and_not_made_anew(stage: &Stage) {
    let (_, database) = two(stage).await;
    engine(stage).await.drop_database(&database.name.parse().unwrap()).await.unwrap();
    let left = assert_left(stage, Kind::DatabaseMissing).await;
    assert_told_of(&left, &database);
}

async fn a_database_that_cannot_be_entered_is_told(stage: &Stage) {
    let (_, database) = two(stage).await;
    if stage.kind() == EngineKind::Sqlite {
        let home = stage.folder.path().join("databases").join(&database.name);
        std::fs::write(home.join("database.db"), vec![b'x'; 8192]).unwrap();
        for log in ["database.db-wal", "database.db-shm"] {
            let _ = std::fs::remove_file(home.join(log));
        }
    } else {
        let admin = stage.admin().await;
        let closed = format!("ALTER DATABASE \"{}\" ALLOW_CONNECTIONS false", database.name);
        admin.execute_unprepared(&closed).await.unwrap();
        admin.close().await.unwrap();
    }
    let left = assert_left(stage, Kind::DatabaseUnreachable).await;
    assert_told_of(&left, &database);
}

async fn a_stamp_that_is_missing_or_anothers_is_told_and_left(stage: &Stage) {
    let (_, database) = two(stage).await;
    let other = Uuid::now_v7();
    write(stage, &database.name, &format!("UPDATE freehold_stamp SET tenant_id = '{other}'")).await;
    let left = assert_left(stage, Kind::StampDisagrees).await;
    assert_told_of(&left, &database);
    assert!(left.detail.contains(&other.to_string()));
    for gone in ["DELETE FROM freehold_stamp", "DROP TABLE freehold_stamp"] {
        write(stage, &database.name, gone).await;
        assert_told_of(&assert_left(stage, Kind::StampMissing).await, &database);
    }
}

async fn a_schema_version_is_recorded_upwards_alone(stage: &Stage) {
    let (tenant, database) = two(stage).await;
    set_tenant(stage, tenant.id, tenants::Column::SchemaVersion, 1).await;
    assert_told_of(&assert_fixed(stage, Kind::SchemaVersionDisagrees).await, &database);
    let now = row(stage, tenant.id).await;
    assert_eq!(now.schema_version, 2);
    assert!(now.revision > tenant.revision && now.version > tenant.version, "data planes and operators hear of it");
    set_tenant(stage, tenant.id, tenants::Column::SchemaVersion, 3).await;
    assert_left(stage, Kind::SchemaVersionDisagrees).await;
    assert_eq!(row(stage, tenant.id).await.schema_version, 3);
}

async fn a_url_that_does_not_open_is_told(stage: &Stage) {
    let (tenant, database) = two(stage).await;
    let sealed = tenant.sealed_url.clone().unwrap();
    let by_another_key = sealed.replace("fh1.k.", "fh1.lost.");
    set_tenant(stage, tenant.id, tenants::Column::SealedUrl, by_another_key.as_str()).await;
    let left = assert_left(stage, Kind::UrlDoesNotOpen).await;
    assert_told_of(&left, &database);
    assert!(left.detail.contains("\"lost\"") && left.detail.contains("tenant's row"), "{left:?}");
    set_database(stage, &database.name, databases::Column::SealedUrl, by_another_key).await;
    assert_left(stage, Kind::UrlDoesNotOpen).await;
    set_tenant(stage, tenant.id, tenants::Column::SealedUrl, None::<String>).await;
    assert_left(stage, Kind::UrlDoesNotOpen).await;
    // The remedy works.
    rotated(stage, tenant.id).await;
    assert_eq!(kinds(&found(stage).await), []);
}

async fn urls_that_disagree_are_told(stage: &Stage) {
    let (tenant, database) = two(stage).await;
    let ring = &stage.plane.tenants_ring;
    let opened = ring.open(url_subject(tenant.id, 1), &Sealed::from_stored(database.sealed_url.as_str())).unwrap();
    let seal = |url: &SecretString, generation| {
        ring.seal(url_subject(tenant.id, generation), url, &mut rand::rng()).as_stored().to_owned()
    };
    // Another generation.
    set_tenant(stage, tenant.id, tenants::Column::Generation, 2).await;
    set_tenant(stage, tenant.id, tenants::Column::SealedUrl, seal(&opened, 2)).await;
    assert_told_of(&assert_left(stage, Kind::UrlDisagrees).await, &database);
    // Another URL.
    let elsewhere = SecretString::from(opened.expose_secret().replace(&database.name, "fh_aaaaaaaaaaaaaaaaaaaaaaaa"));
    set_tenant(stage, tenant.id, tenants::Column::Generation, 1).await;
    set_tenant(stage, tenant.id, tenants::Column::SealedUrl, seal(&elsewhere, 1)).await;
    assert_told_of(&assert_left(stage, Kind::UrlDisagrees).await, &database);
    // One URL, which leads to another database.
    set_database(stage, &database.name, databases::Column::SealedUrl, seal(&elsewhere, 1)).await;
    assert_told_of(&assert_left(stage, Kind::UrlDisagrees).await, &database);
    rotated(stage, tenant.id).await;
    assert_eq!(kinds(&found(stage).await), []);
}

async fn a_server_that_disagrees_is_told(stage: &Stage) {
    let (tenant, database) = two(stage).await;
    let other = stage.add_server("two", "eu", stage.kind(), 10).await;
    set_tenant(stage, tenant.id, tenants::Column::ServerId, other).await;
    // The second server is the first by another name: what is on it is unknown there.
    let findings = found(stage).await;
    let strays = [Kind::DatabaseWithoutTenant, Kind::PlacedDisagrees];
    let told: Vec<_> = findings.iter().filter(|it| !strays.contains(&it.kind)).collect();
    assert_eq!(told.len(), 1, "{findings:#?}");
    let counts: Vec<_> = findings.iter().filter(|it| it.kind == Kind::PlacedDisagrees).collect();
    assert_eq!(counts.len(), 2, "a place is counted where the tenant was placed: {findings:#?}");
    assert_eq!(told[0].kind, Kind::ServerDisagrees);
    assert_told_of(told[0], &database);
}

/// The tenant's row as it is now.
async fn row(stage: &Stage, tenant: Uuid) -> tenants::Model {
    tenants::Entity::find_by_id(tenant).one(stage.plane.registry.db()).await.unwrap().unwrap()
}
