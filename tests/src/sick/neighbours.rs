//! Tenants in trouble, and the tenants whose databases are on the same server.

use std::time::Instant;

use control_plane::TenantSchema as _;
use futures_util::future::{join, join_all};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement};
use serde_json::{Value, json};

use super::load::{Load, Others};
use super::{OTHERS, SETTINGS, TUNING, ask, assert_all_refused, end_until_refused, until};
use crate::bed::{Bed, PATIENCE, Store, Tenant};
use crate::postgres::Postgres;

/// The data plane whose product needs the newest schema version.
const NEWEST: usize = 1;
/// Tenants at the oldest schema version.
const BEHIND: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_in_trouble_harms_no_neighbour_on_its_server() {
    let server = Postgres::start_with(SETTINGS);
    let mut bed = Bed::start_with(Store::Sqlite, 1, 1, TUNING).await;
    let control = bed.control[0].url.clone();
    bed.add_node_of("next-data-plane", &control);
    bed.until_ready(NEWEST).await;
    let (behind, mut tenants) = make(&bed, &server).await;
    let troubled = tenants.split_off(OTHERS);
    let mut names = Vec::new();
    for tenant in &troubled {
        names.push(bed.registry_row(tenant).await.0);
    }
    let admin = server.look("postgres").await;
    let run = async |sql: String| admin.execute_unprepared(&sql).await.unwrap();
    // The database that is dropped later is restored from this copy.
    run(format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'", names[2])).await;
    run(format!("CREATE DATABASE kept TEMPLATE \"{}\"", names[2])).await;
    let mut others = Others::new(&bed, "shared", &server, tenants).await;
    until(&bed, "GET", &troubled, 200).await;
    until(&bed, "GET", &behind, 200).await;

    for tenant in &behind {
        let answer = bed.get(NEWEST, tenant, "/api/pets").await;
        assert_eq!((answer.status, answer.kind().as_str()), (503, "schema-behind"), "{answer:?}");
    }
    let during = "databases were migrated";
    let seen = others.beside(&behind, during, async |_: &Load| roll_out(&bed, &behind).await).await;
    // This data plane's product serves every schema version: no request of the migrated tenants fails there.
    seen.assert_served("those behind", during);

    let owner = server.look(&names[0]).await;
    others
        .beside(&[], "a column's type was changed", async |load: &Load| {
            for size in [200, 300, 400] {
                change_type(&bed, &owner, size, &troubled[0]).await;
            }
            load.turn().await;
        })
        .await;

    let role = format!("{}_a", names[1]);
    let password = stored_password(&admin, &role).await;
    let faults = [
        ("a role's password was changed", "PASSWORD 'another'", format!("PASSWORD '{password}'")),
        ("a role had as many sessions as it may have", "CONNECTION LIMIT 0", "CONNECTION LIMIT -1".to_owned()),
    ];
    for (during, changed, mended) in faults {
        others
            .beside(&troubled[1..2], during, async |load: &Load| {
                run(format!("ALTER ROLE \"{role}\" {changed}")).await;
                end_until_refused(&bed, &admin, &names[1], &troubled[1]).await;
                load.turn().await;
                assert_all_refused(&[ask(&bed, "GET", &troubled[1]).await]);
                run(format!("ALTER ROLE \"{role}\" {mended}")).await;
                until(&bed, "GET", &troubled[1..2], 200).await;
            })
            .await;
    }

    others
        .beside(&troubled[2..], "a database was dropped", async |load: &Load| {
            run(format!("DROP DATABASE \"{}\" WITH (FORCE)", names[2])).await;
            until(&bed, "GET", &troubled[2..], 503).await;
            load.turn().await;
            assert_all_refused(&[ask(&bed, "GET", &troubled[2]).await]);
            run(format!("ALTER DATABASE kept RENAME TO \"{}\"", names[2])).await;
            until(&bed, "GET", &troubled[2..], 200).await;
        })
        .await;
    others.assert_kept().await;
}

/// Registers the server, and makes tenants of the oldest schema version and of the newest.
async fn make(bed: &Bed, server: &Postgres) -> (Vec<Tenant>, Vec<Tenant>) {
    bed.register("shared", &server.url(), &Value::Null).await;
    bed.new_tenants_get(1).await;
    let mut behind = Vec::new();
    for number in 0..BEHIND {
        behind.push(bed.tenant_of("test", Some("shared"), &format!("behind-{number}")).await);
    }
    let newest = petstore::Schema.migrations().len();
    bed.new_tenants_get(u32::try_from(newest).unwrap()).await;
    let tenants = bed.tenants_in("shared", OTHERS + 3).await;
    // Now each data plane has its share of the server's connections.
    bed.until(&tenants[0], "/api/pets", 200).await;
    (behind, tenants)
}

/// Brings tenants to the newest schema version. The data plane that needs it serves each of them as soon as its database has it.
async fn roll_out(bed: &Bed, behind: &[Tenant]) {
    let order = json!({ "settings": { "canary": 0, "waves": [] } });
    let rollout = bed.done("POST", "/v1/rollouts", Some(order)).await;
    let ended = bed.until_rollout(rollout["id"].as_str().unwrap(), |now| now["state"] != "running");
    let served = join_all(behind.iter().map(|tenant| until_admitted(bed, tenant)));
    let (ended, _) = join(ended, served).await;
    assert_eq!((&ended["state"], &ended["counts"]["done"]), (&json!("done"), &json!(behind.len())), "{ended}");
}

/// Until the schema gate lets a tenant in.
async fn until_admitted(bed: &Bed, tenant: &Tenant) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = bed.get(NEWEST, tenant, "/api/pets").await;
        if answer.status == 200 {
            return;
        }
        assert_all_refused(std::slice::from_ref(&answer));
        assert!(Instant::now() < deadline, "{} is still answered {answer:?}", tenant.slug);
    }
}

/// Changes the type of a column that the tenant's requests read. None of them fails.
async fn change_type(bed: &Bed, owner: &DatabaseConnection, size: u32, tenant: &Tenant) {
    let change = format!("ALTER TABLE pets ALTER COLUMN breed TYPE varchar({size})");
    owner.execute_unprepared(&change).await.unwrap();
    for _ in 0..4 {
        let answers = join_all((0..16).map(|_| ask(bed, "GET", tenant))).await;
        let failed = answers.iter().find(|answer| answer.status != 200);
        assert!(failed.is_none(), "{failed:?}");
    }
    let created = ask(bed, "POST", tenant).await;
    assert_eq!(created.status, 201, "{created:?}");
}

/// What the server keeps of a role's password.
async fn stored_password(admin: &DatabaseConnection, role: &str) -> String {
    let sql = format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'");
    let row = admin.query_one_raw(Statement::from_string(admin.get_database_backend(), sql)).await.unwrap();
    row.unwrap().try_get_by_index(0).unwrap()
}
