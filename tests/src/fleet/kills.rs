//! Of two control planes the one at work on a target is killed with SIGKILL at every point of it. The other takes over, and each
//! migration has taken effect once: each wrote a row.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::{Value, json};

use crate::bed::{Bed, PATIENCE, Store, Tenant, Tuning};
use crate::process::Process;

/// What a control plane says at each point of a target, in their order.
const POINTS: [&str; 5] = [
    "a target begins",
    "the second migration is at work",
    "the third migration is at work",
    "a target has ended",
    "targets are written down",
];

const TUNING: Tuning = Tuning {
    tenants: "grace_seconds = 0\nlease_seconds = 1\n",
    telemetry: "filter = \"info,control_plane::fleet=debug\"\n",
    ..Tuning::DEFAULT
};

/// The migrations that took effect in a tenant's database, each as often as it did.
async fn effects(bed: &Bed, tenant: &Tenant) -> Vec<String> {
    let database = service::pool::open(bed.database_url(tenant).await).await.unwrap();
    let select = "SELECT migration FROM effects ORDER BY migration";
    let rows = database.query_all_raw(Statement::from_string(database.get_database_backend(), select)).await.unwrap();
    let effects = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
    database.close().await.unwrap();
    effects
}

/// The tenant's rollout, once it is done.
async fn done(bed: &Bed, at: usize, slug: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all = bed.operator_at(at, "GET", "/v1/rollouts", None).await.json();
        let of_tenant = all["items"].as_array().unwrap().iter().find(|it| it["select"]["tenants"][0] == slug).cloned();
        let rollout = of_tenant.unwrap_or_default();
        if rollout["state"] == "done" {
            return rollout;
        }
        assert!(Instant::now() < deadline, "nobody went on with it: {all}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_target_survives_the_death_of_its_control_plane_at_every_point(store: Store) {
    let mut bed = Bed::start_of("counted-control-plane", store, 2, TUNING).await;
    // New tenants have the first version, and a rollout has something to do.
    bed.new_tenants_get(1).await;
    for (number, point) in POINTS.into_iter().enumerate() {
        let tenant = bed.tenant(&format!("acme-{number}")).await;
        let (sprung, heard) = channel();
        for process in &bed.control {
            process.kill_at(sprung.clone(), move |line| line["message"] == point);
        }
        let order = json!({
            "select": { "tenants": [tenant.slug] },
            "settings": { "canary": 0, "waves": [], "attempts": 8 },
        });
        // Whoever answers may be killed before it has.
        let call = bed.client.post(format!("{}/v1/rollouts", bed.control[0].url)).bearer_auth(&bed.token).json(&order);
        let (asked, killed) =
            tokio::join!(call.send(), tokio::task::spawn_blocking(move || heard.recv_timeout(PATIENCE)));
        if let Ok(answer) = asked {
            assert_eq!(answer.status(), 201, "{point}");
        }
        assert!(killed.unwrap().is_ok(), "nobody came to {point:?}");
        let alive: Vec<bool> = bed.control.iter().map(Process::spare).collect();
        let alive = alive.iter().position(|is_alive| *is_alive).expect("one is killed, not both");
        let rollout = done(&bed, alive, &tenant.slug).await;
        assert_eq!(rollout["counts"]["done"], 1, "{point}: {rollout}");
        assert_eq!(effects(&bed, &tenant).await, ["first", "second", "third"], "killed where {point:?}");
        let path = format!("/v1/tenants/{}", tenant.slug);
        assert_eq!(bed.operator_at(alive, "GET", &path, None).await.json()["schema_version"], 3, "{point}");
        bed.control[1 - alive].restart();
    }
    bed.assert_healthy().await;
}

mod a_target_survives_the_death_of_its_control_plane_at_every_point {
    use super::Store;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_sqlite() {
        super::a_target_survives_the_death_of_its_control_plane_at_every_point(Store::Sqlite).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn on_postgres() {
        super::a_target_survives_the_death_of_its_control_plane_at_every_point(Store::Postgres).await;
    }
}
