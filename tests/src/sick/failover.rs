//! A server that refuses writes or new sessions, or whose standby takes over, and the tenants of another server.

use std::time::Instant;

use futures_util::future::join_all;
use sea_orm::{ConnectionTrait as _, DatabaseConnection};
use serde_json::{Value, json};

use super::load::{Load, Others};
use super::{HUNG, OTHERS, SETTINGS, TROUBLED, TUNING, ask, ask_all, end_until_refused, tenants_on, until};
use crate::bed::{Bed, Store, Tenant};
use crate::postgres::Postgres;
use crate::way::Way;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_changes_its_mind_harms_no_tenant_of_another() {
    let (well, mut sick) = (Postgres::start_with(SETTINGS), Postgres::start_with(SETTINGS));
    let way = Way::to(&sick.place()).await;
    let bed = Bed::start_with(Store::Sqlite, 1, 1, TUNING).await;
    let tenants = tenants_on(&bed, "well", &well, &Value::Null, OTHERS).await;
    let troubled = tenants_on(&bed, "sick", &sick, &json!({ "data_address": way.address }), TROUBLED).await;
    let mut others = Others::new(&bed, "well", &well, tenants).await;
    until(&bed, "GET", &troubled, 200).await;

    let admin = sick.look("postgres").await;
    others
        .beside(&troubled, "a server took no writes", async |load: &Load| {
            let refuse = "ALTER SYSTEM SET default_transaction_read_only = on";
            execute(&admin, &[refuse, "SELECT pg_reload_conf()"]).await;
            until(&bed, "POST", &troubled, 503).await;
            until(&bed, "GET", &troubled, 200).await;
            load.turn().await;
            let (own, allow) =
                ("SET default_transaction_read_only = off", "ALTER SYSTEM RESET default_transaction_read_only");
            execute(&admin, &[own, allow, "SELECT pg_reload_conf()"]).await;
            until(&bed, "POST", &troubled, 201).await;
        })
        .await;

    let (first, rest) = troubled.split_first().unwrap();
    let (database, _) = bed.registry_row(first).await;
    others
        .beside(&troubled, "a server that shut down let no session begin", async |load: &Load| {
            sick.shut_down_smartly();
            end_until_refused(&bed, &admin, &database, first).await;
            assert_refused_at_once(&bed, first).await;
            let answers = ask_all(&bed, rest).await;
            let served = answers.iter().find(|answer| answer.status == 200);
            assert!(served.is_some(), "open sessions are of no use: {answers:?}");
            load.turn().await;
            sick.restart();
            until(&bed, "GET", &troubled, 200).await;
        })
        .await;

    let standby = sick.standby();
    others
        .beside(&troubled, "a standby that took no writes yet stood in for a server", async |load: &Load| {
            way.lead_to(&standby.place());
            sick.stop();
            until(&bed, "GET", &troubled, 200).await;
            let writes = join_all(troubled.iter().map(|tenant| ask(&bed, "POST", tenant))).await;
            for refused in &writes {
                assert_eq!((refused.status, refused.kind().as_str()), (503, "database-unavailable"), "{refused:?}");
            }
            until(&bed, "GET", &troubled, 200).await;
            load.turn().await;
            standby.promote().await;
            until(&bed, "POST", &troubled, 201).await;
        })
        .await;
    others.assert_kept().await;
}

/// A tenant that has no connection is refused without a wait.
async fn assert_refused_at_once(bed: &Bed, tenant: &Tenant) {
    let begun = Instant::now();
    for _ in 0..10 {
        let answer = ask(bed, "GET", tenant).await;
        assert_eq!((answer.status, answer.kind().as_str()), (503, "database-unavailable"), "{answer:?}");
    }
    // A single one that waited for a connection would have taken as long.
    assert!(begun.elapsed() < HUNG, "{:?}", begun.elapsed());
}

/// Sends these statements, one after the other.
async fn execute(db: &DatabaseConnection, statements: &[&str]) {
    for statement in statements {
        db.execute_unprepared(statement).await.unwrap();
    }
}
