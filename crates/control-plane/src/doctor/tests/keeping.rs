//! Templates, ready databases and the count of places: what is gone is found, and made anew by the keeper or by a fix.

use sea_orm::QuerySelect;

use super::*;

on_both! {
    a_template_that_somebody_dropped_is_found_and_replaced,
    a_ready_database_that_somebody_dropped_is_found_and_replaced,
    a_wrong_count_of_places_is_found_and_put_right,
}

async fn templates_of(stage: &Stage) -> Vec<String> {
    let rows = templates::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    rows.into_iter().map(|row| row.name).collect()
}

async fn warm(stage: &Stage) -> Vec<String> {
    let rows = warm_databases::Entity::find().all(stage.plane.registry.db()).await.unwrap();
    rows.into_iter().map(|row| row.name).collect()
}

async fn drop_behind_our_back(stage: &Stage, name: &str) {
    engine(stage).await.drop_database(&name.parse().unwrap()).await.unwrap();
}

async fn is_there(stage: &Stage, name: &str) -> bool {
    engine(stage).await.has_database(&name.parse().unwrap()).await.unwrap()
}

async fn a_template_that_somebody_dropped_is_found_and_replaced(stage: &Stage) {
    stage.keep(1).await;
    assert_eq!(kinds(&found(stage).await), []);
    let before = templates_of(stage).await.remove(0);
    drop_behind_our_back(stage, &before).await;
    let told = only(stage, Kind::TemplateMissing).await;
    assert_eq!((told.server.as_deref(), told.database.as_ref()), (Some("one"), Some(&before)));
    stage.keep(1).await;
    let after = templates_of(stage).await;
    assert!(after.len() == 1 && after[0] != before && is_there(stage, &after[0]).await, "{after:?}");
    assert_eq!(kinds(&found(stage).await), []);

    drop_behind_our_back(stage, &after[0]).await;
    assert_fixed(stage, Kind::TemplateMissing).await;
    // A tenant that comes before the next template has a database all the same.
    built(stage, "acme").await;
    built(stage, "globex").await;
    assert_eq!(kinds(&found(stage).await), []);
}

async fn a_ready_database_that_somebody_dropped_is_found_and_replaced(stage: &Stage) {
    stage.keep(2).await;
    let before = warm(stage).await;
    drop_behind_our_back(stage, &before[0]).await;
    let told = only(stage, Kind::WarmDatabaseMissing).await;
    assert_eq!((told.server.as_deref(), told.database.as_ref()), (Some("one"), Some(&before[0])));
    stage.keep(2).await;
    let after = warm(stage).await;
    assert!(after.len() == 2 && !after.contains(&before[0]) && after.contains(&before[1]), "{before:?} {after:?}");
    assert_eq!(kinds(&found(stage).await), []);

    drop_behind_our_back(stage, &after[0]).await;
    assert_fixed(stage, Kind::WarmDatabaseMissing).await;
    assert!(!warm(stage).await.contains(&after[0]), "nobody gets what is not there");
    built(stage, "acme").await;
    built(stage, "globex").await;
    assert_eq!(kinds(&found(stage).await), []);
}

async fn a_wrong_count_of_places_is_found_and_put_right(stage: &Stage) {
    built(stage, "acme").await;
    built(stage, "globex").await;
    for planted in [0, 7] {
        servers::Entity::update_many()
            .col_expr(servers::Column::Placed, Expr::value(planted))
            .exec(stage.plane.registry.db())
            .await
            .unwrap();
        let fixed = assert_fixed(stage, Kind::PlacedDisagrees).await;
        assert_eq!(fixed.server.as_deref(), Some("one"));
        let placed: Option<i32> = servers::Entity::find()
            .select_only()
            .column(servers::Column::Placed)
            .into_tuple()
            .one(stage.plane.registry.db())
            .await
            .unwrap();
        assert_eq!(placed, Some(2));
    }
}

async fn limit(stage: &Stage, role: &str) -> i32 {
    let admin = stage.admin().await;
    let sql = format!("SELECT rolconnlimit FROM pg_roles WHERE rolname = '{role}'");
    let row = admin.query_one_raw(sea_orm::Statement::from_string(admin.get_database_backend(), sql)).await.unwrap();
    admin.close().await.unwrap();
    row.unwrap().try_get_by_index(0).unwrap()
}

async fn set_budget(stage: &Stage, budget: i32) {
    servers::Entity::update_many()
        .col_expr(servers::Column::ConnectionBudget, Expr::value(budget))
        .exec(stage.plane.registry.db())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn login_roles_of_ready_databases_follow_their_servers_budget_on_postgres() {
    on_postgres(async |stage| {
        stage.keep(1).await;
        let role = format!("{}_a", warm(stage).await[0]);
        assert_eq!(limit(stage, &role).await, 20);
        set_budget(stage, 30).await;
        let told = only(stage, Kind::PrivilegesDrifted).await;
        assert!(told.tenant.is_none() && told.detail.contains("20 connections, and not 30"), "{told:?}");
        stage.keep(1).await;
        assert_eq!(limit(stage, &role).await, 30);
        assert_eq!(kinds(&found(stage).await), []);
        set_budget(stage, 40).await;
        assert_fixed(stage, Kind::PrivilegesDrifted).await;
        assert_eq!(limit(stage, &role).await, 40);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ready_database_whose_login_role_is_gone_is_replaced_on_postgres() {
    on_postgres(async |stage| {
        stage.keep(1).await;
        let before = warm(stage).await.remove(0);
        let admin = stage.admin().await;
        let gone = format!("REVOKE ALL ON DATABASE \"{before}\" FROM \"{before}_a\"; DROP ROLE \"{before}_a\"");
        admin.execute_unprepared(&gone).await.unwrap();
        only(stage, Kind::WarmDatabaseMissing).await;
        stage.keep(1).await;
        assert!(!warm(stage).await.contains(&before) && !is_there(stage, &before).await);
        assert_eq!(kinds(&found(stage).await), []);
        admin.close().await.unwrap();
    })
    .await;
}
