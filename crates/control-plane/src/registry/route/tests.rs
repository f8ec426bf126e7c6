//! A route is found without reading all tenants, whatever it is asked by.

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};
use sea_orm_migration::MigratorTrait as _;
use uuid::Uuid;

use super::*;

#[tokio::test]
async fn an_index_serves_each_question() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("registry.db").display());
    let db = service::pool::open(url).await.unwrap();
    registry_migrations::Migrator::up(&db, None).await.unwrap();
    let asked = [
        Asked::Tenant(Uuid::now_v7().into()),
        Asked::Key("abcdefghijklmnopqrst".parse().unwrap()),
        Asked::Slug("acme".into()),
        Asked::Host("pets.acme.example".into()),
        Asked::Issuer("https://login.acme.example".into()),
    ];
    for asked in asked {
        let wanted = is_asked_for(&asked).unwrap();
        let Statement { sql, values, .. } = DbBackend::Sqlite.build(&found::select(wanted));
        let explain = Statement { sql: format!("EXPLAIN QUERY PLAN {sql}"), values, db_backend: DbBackend::Sqlite };
        let plan = db.query_all_raw(explain).await.unwrap();
        let steps: Vec<String> = plan.iter().map(|step| step.try_get("", "detail").unwrap()).collect();
        assert!(steps.iter().any(|step| step.starts_with("SEARCH tenants")), "{asked:?}: {steps:?}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{asked:?}: {steps:?}");
    }
    db.close().await.unwrap();
}
