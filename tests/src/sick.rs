//! Sick servers and tenants in trouble: what 50 other tenants see of them while they are under load, which is nothing.
//!
//! The others share fewer connections than there are tenants. Each fault begins and ends under load. Meanwhile each of the others
//! is served. All faults are real: servers that are killed, frozen, full or shut down, networks that swallow what is sent, and a
//! standby that takes no writes. Databases, types and passwords change underneath.

mod failover;
mod load;
mod neighbours;
mod server;

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sea_orm::{ConnectionTrait as _, DatabaseConnection};
use serde_json::{Value, json};

use crate::bed::{Answer, Bed, PATIENCE, Tenant, Tuning, send};
use crate::postgres::Postgres;

const OTHERS: usize = 50;
/// Tenants on the sick server.
const TROUBLED: usize = 6;
/// A request that takes this long waited for a server that does not answer. [`TUNING`] bounds each such wait by it. Nothing else
/// takes so long. A shorter time would not do: on a slow machine opening a connection took more than 2.5 s.
const HUNG: Duration = Duration::from_secs(8);
const TUNING: Tuning =
    Tuning { data: "[pools]\nwait_ms = 8000\ndial_ms = 8000\nstatement_seconds = 8\n", ..Tuning::DEFAULT };
/// With these, data planes have fewer connections than there are others.
const SETTINGS: &[&str] = &["max_connections=60"];

/// Registers a server, whose region has the same name, and makes tenants there.
async fn tenants_on(bed: &Bed, name: &str, server: &Postgres, fields: &Value, count: usize) -> Vec<Tenant> {
    bed.register(name, &server.url(), fields).await;
    bed.tenants_in(name, count).await
}

/// Asks for a tenant's pets, or creates one by a POST.
async fn ask(bed: &Bed, method: &str, tenant: &Tenant) -> Answer {
    let request = bed.request(0, method, "/api/pets").bearer_auth(&tenant.key);
    let pet = json!({ "name": "Rex", "species": "dog" });
    send(if method == "POST" { request.json(&pet) } else { request }).await
}

/// Asks for the pets of all of these tenants at once.
async fn ask_all(bed: &Bed, tenants: &[Tenant]) -> Vec<Answer> {
    join_all(tenants.iter().map(|tenant| ask(bed, "GET", tenant))).await
}

fn assert_all_refused(answers: &[Answer]) {
    let served = answers.iter().find(|answer| answer.status != 503);
    assert!(served.is_none(), "{served:?}");
}

/// Until each of these tenants was answered with this status.
async fn until(bed: &Bed, method: &str, tenants: &[Tenant], status: u16) {
    join_all(tenants.iter().map(|tenant| until_one(bed, method, tenant, status))).await;
}

async fn until_one(bed: &Bed, method: &str, tenant: &Tenant, status: u16) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = ask(bed, method, tenant).await;
        if answer.status == status {
            return;
        }
        assert!(Instant::now() < deadline, "{method} of {} is still answered {answer:?}", tenant.slug);
    }
}

/// Ends a tenant's sessions until the tenant gets no other one.
async fn end_until_refused(bed: &Bed, admin: &DatabaseConnection, database: &str, tenant: &Tenant) {
    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'");
    let deadline = Instant::now() + PATIENCE;
    loop {
        admin.execute_unprepared(&end).await.unwrap();
        // The first may only have used a session that was ended.
        let answers = [ask(bed, "GET", tenant).await, ask(bed, "GET", tenant).await];
        if answers.iter().all(|answer| answer.status == 503) {
            return;
        }
        assert!(Instant::now() < deadline, "{} is still answered {answers:?}", tenant.slug);
    }
}
