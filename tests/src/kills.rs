//! Invariant 8 on real processes: of two control planes on one registry the one at work is killed with SIGKILL at every step
//! of every long action, forward and while it is undone. The other takes over, the dead one comes back, and nothing is done
//! twice, left over or forgotten.

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::Instant;

use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};

use crate::bed::{Bed, PATIENCE, Store, Tuning, send, try_send};

const BEGINS: &str = "a step begins";
const WRITTEN: &str = "a step is written down";

/// A restore is one commit: what it says around it.
const RESTORE: [&str; 3] = ["a restore begins", "a restore is about to be committed", "a restore is committed"];

/// A takeover within a second, so that the test need not wait ten for each kill; and the lines that tell of steps.
const TUNING: Tuning = Tuning {
    tenants: "grace_seconds = 0\nlease_seconds = 1\nhold_slug_seconds = 0\n",
    telemetry: "filter = \"info,control_plane::provision=debug,control_plane::api::tenants=debug\"\n",
    ..Tuning::DEFAULT
};

/// Where a process is killed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    step: String,
    is_undo: bool,
    says: &'static str,
}

/// Before and after each of these steps.
fn points(steps: &[String], is_undo: bool) -> Vec<Point> {
    let both = |step: &String| [BEGINS, WRITTEN].map(|says| Point { step: step.clone(), is_undo, says });
    steps.iter().flat_map(both).collect()
}

/// The steps of an operation that has ended, as the program tells them; of one that was undone, those that were.
fn steps_of(operation: &Value) -> Vec<String> {
    let steps = operation["steps"].as_array().unwrap_or_else(|| panic!("it tells no steps: {operation}"));
    let is_undone = operation["state"] == "failed";
    let steps = steps.iter().filter(|step| !is_undone || step["state"] == "undone");
    let names: Vec<String> = steps.map(|step| step["name"].as_str().unwrap().to_owned()).collect();
    assert!(!names.is_empty(), "{operation}");
    names
}

/// Two control planes and what was done to them.
struct Kills {
    bed: Bed,
    counts: BTreeMap<(&'static str, Point), usize>,
}

impl Kills {
    /// Asks for something, kills whoever is at work on it at the point, and waits until it has ended all the same.
    async fn at(
        &mut self,
        kind: &'static str,
        point: Point,
        tenant: &str,
        (path, body): (&str, Option<Value>),
    ) -> Value {
        let (sprung, heard) = channel();
        for process in &self.bed.control {
            let point = point.clone();
            process.kill_at(sprung.clone(), move |line| {
                line["message"] == point.says && line["step"] == *point.step && line["undoing"] == point.is_undo
            });
        }
        let method = if kind == "delete" { "DELETE" } else { "POST" };
        // Whoever answers may be killed before it has: what was asked for is found in the registry.
        let asked = self.call(0, method, path, body).send();
        let (asked, killed) = tokio::join!(asked, tokio::task::spawn_blocking(move || heard.recv_timeout(PATIENCE)));
        if let Ok(answer) = asked {
            assert_eq!(answer.status(), 202, "{kind} {point:?}");
        }
        assert!(killed.unwrap().is_ok(), "{kind} never came to {point:?}");
        self.count(kind, point);
        let alive: Vec<bool> = self.bed.control.iter().map(crate::process::Process::spare).collect();
        let alive = alive.iter().position(|is_alive| *is_alive).expect("one is killed, not both");
        let ended = self.ended(alive, kind, tenant).await;
        self.bed.control[1 - alive].restart();
        ended
    }

    fn call(&self, at: usize, method: &str, path: &str, body: Option<Value>) -> reqwest::RequestBuilder {
        let url = format!("{}{path}", self.bed.control[at].url);
        let call = self.bed.client.request(method.parse().unwrap(), url).bearer_auth(&self.bed.token);
        match body {
            Some(body) => call.json(&body),
            None => call,
        }
    }

    /// The tenant's newest operation of the kind, once it has ended.
    async fn ended(&self, at: usize, kind: &str, tenant: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let all = send(self.call(at, "GET", &format!("/v1/operations?tenant={tenant}"), None)).await.json();
            let newest = all["items"].as_array().unwrap().iter().find(|it| it["kind"] == kind).cloned();
            let newest = newest.unwrap_or_else(|| panic!("there is no {kind} of {tenant}: {all}"));
            if newest["finished_at"].is_string() {
                return newest;
            }
            assert!(Instant::now() < deadline, "it does not end: {newest}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    async fn tenant(&self, slug: &str) -> Value {
        self.bed.done("GET", &format!("/v1/tenants/{slug}"), None).await
    }

    fn count(&mut self, kind: &'static str, point: Point) {
        *self.counts.entry((kind, point)).or_default() += 1;
    }

    /// One of the kind that nobody is killed at: the program tells its steps.
    async fn sample(&self, kind: &str, tenant: &str, (path, body): (&str, Option<Value>)) -> Vec<String> {
        let method = if kind == "delete" { "DELETE" } else { "POST" };
        let asked = send(self.call(0, method, path, body)).await;
        assert_eq!(asked.status, 202, "{asked:?}");
        let ended = self.ended(0, kind, tenant).await;
        let id = ended["id"].as_str().unwrap();
        steps_of(&self.bed.done("GET", &format!("/v1/operations/{id}"), None).await)
    }

    /// Every point was hit, once.
    fn assert_hit(&self, kind: &'static str, points: &[Point]) {
        for point in points {
            assert_eq!(self.counts.get(&(kind, point.clone())), Some(&1), "{kind} {point:?}");
        }
    }
}

fn body(slug: &str) -> Value {
    json!({ "slug": slug, "name": slug, "plan": "test" })
}

/// A registry that refuses one write, whoever makes it, as a broken one would.
async fn refuse(bed: &Bed, name: &str, event: &str, when: &str) {
    let registry = bed.registry().await;
    let statements = match bed.store {
        Store::Sqlite => vec![format!(
            "CREATE TRIGGER {name} BEFORE UPDATE OF {event} ON tenants FOR EACH ROW WHEN {when} \
             BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
        )],
        Store::Postgres => vec![
            format!(
                "CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 RAISE EXCEPTION 'refused by the test' USING ERRCODE = 'check_violation'; END $$"
            ),
            format!(
                "CREATE TRIGGER {name} BEFORE UPDATE OF {event} ON tenants FOR EACH ROW WHEN ({when}) \
                 EXECUTE FUNCTION {name}()"
            ),
        ],
    };
    for statement in statements {
        registry.execute_unprepared(&statement).await.unwrap();
    }
    registry.close().await.unwrap();
}

async fn every_long_action_survives_a_kill_at_every_step(store: Store) {
    let bed = Bed::start_with(store, 2, 0, TUNING).await;
    refuse(&bed, "refuse_activation", "status", "NEW.status = 'active' AND NEW.slug LIKE 'doomed%'").await;
    refuse(&bed, "refuse_switch", "generation", "NEW.generation > 1 AND NEW.slug LIKE 'stuck%'").await;
    let mut kills = Kills { bed, counts: BTreeMap::new() };
    let create = kills.sample("create", "sample", ("/v1/tenants", Some(body("sample")))).await;
    let create_undone = kills.sample("create", "doomed", ("/v1/tenants", Some(body("doomed")))).await;
    let rotate = kills.sample("rotate", "sample", ("/v1/tenants/sample/rotate-credentials", None)).await;
    let sample = kills.tenant("sample").await["id"].as_str().unwrap().to_owned();
    let delete = kills.sample("delete", &sample, (&format!("/v1/tenants/{sample}"), None)).await;
    kills.bed.tenant("stuck").await;
    let rotate_undone = kills.sample("rotate", "stuck", ("/v1/tenants/stuck/rotate-credentials", None)).await;
    let [create, rotate, delete] = [create, rotate, delete].map(|steps| points(&steps, false));
    let [create_undone, rotate_undone] = [create_undone, rotate_undone].map(|steps| points(&steps, true));
    // The last of a creation is refused, and all of it is undone; of a rotation, what data planes have not heard of yet.
    assert_eq!(create_undone.len(), create.len());
    assert!(rotate_undone.len() < rotate.len() && delete.len() < create.len());

    for (number, point) in create.iter().cloned().enumerate() {
        let slug = format!("acme-{number}");
        let ended = kills.at("create", point.clone(), &slug, ("/v1/tenants", Some(body(&slug)))).await;
        assert_eq!(ended["state"], "done", "{point:?}: {ended}");
        assert_eq!(kills.tenant(&slug).await["status"], "active");
    }
    for (number, point) in create_undone.iter().cloned().enumerate() {
        let slug = format!("doomed-{number}");
        let ended = kills.at("create", point.clone(), &slug, ("/v1/tenants", Some(body(&slug)))).await;
        assert_eq!(ended["state"], "failed", "{point:?}: {ended}");
        assert_eq!(kills.tenant(&slug).await["status"], "failed");
    }
    for (number, point) in rotate.iter().cloned().enumerate() {
        let ended = kills.at("rotate", point.clone(), "acme-0", ("/v1/tenants/acme-0/rotate-credentials", None)).await;
        assert_eq!(ended["state"], "done", "{point:?}: {ended}");
        assert_eq!(kills.tenant("acme-0").await["generation"], number + 2, "each took effect once");
    }
    for point in &rotate_undone {
        let ended = kills.at("rotate", point.clone(), "stuck", ("/v1/tenants/stuck/rotate-credentials", None)).await;
        assert_eq!(ended["state"], "failed", "{point:?}: {ended}");
        let tenant = kills.tenant("stuck").await;
        assert_eq!((&tenant["generation"], &tenant["status"]), (&json!(1), &json!("active")));
    }
    for (number, point) in delete.iter().cloned().enumerate() {
        let path = format!("/v1/tenants/acme-{}", number + 1);
        let id = kills.tenant(&format!("acme-{}", number + 1)).await["id"].as_str().unwrap().to_owned();
        let ended = kills.at("delete", point.clone(), &id, (&path, None)).await;
        assert_eq!(ended["state"], "done", "{point:?}: {ended}");
        let tombstone = kills.tenant(&id).await;
        assert_eq!(tombstone["status"], "deleted");
        assert_eq!(tombstone["erasure"]["row_counts"], json!({ "pets": 1, "users": 1 }), "seeded once: {tombstone}");
    }

    let all = [
        ("create", &create),
        ("create", &create_undone),
        ("rotate", &rotate),
        ("rotate", &rotate_undone),
        ("delete", &delete),
    ];
    for (kind, points) in all {
        kills.assert_hit(kind, points);
    }
    assert_eq!(kills.counts.values().sum::<usize>(), all.iter().map(|(_, points)| points.len()).sum::<usize>());
    let bed = kills.bed;
    let left = bed.registry_number("SELECT count(*) FROM operations WHERE finished_at IS NULL").await;
    assert_eq!(left, 0, "every operation has ended");
    // The sample is gone; one is stuck.
    let expected = create.len() + 1 - delete.len();
    assert_eq!(bed.registry_number("SELECT count(*) FROM databases").await, expected);
    bed.assert_healthy().await;
}

/// One that wakes up after it was taken for dead changes nothing, whatever it was in the middle of.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_control_plane_that_wakes_up_changes_nothing() {
    let bed = Bed::start_with(Store::Postgres, 2, 0, TUNING).await;
    let kills = Kills { bed, counts: BTreeMap::new() };
    let steps = ["create_database", "roles", "migrate", "stamp", "seed", "activate"];
    for (number, step) in steps.into_iter().enumerate() {
        let slug = format!("acme-{number}");
        let (sprung, heard) = channel();
        for process in &kills.bed.control {
            process.freeze_at(sprung.clone(), move |line| line["message"] == BEGINS && line["step"] == step);
        }
        // The answer may be frozen with the process that works on it. A process that was just frozen may have lost connections and
        // refuse the call, so it is repeated until it is accepted, as a client would.
        let call = kills.call(0, "POST", "/v1/tenants", Some(body(&slug))).header("idempotency-key", &slug);
        let deadline = Instant::now() + 3 * PATIENCE;
        let asked = tokio::spawn(async move {
            loop {
                let answer = try_send(call.try_clone().unwrap()).await;
                if answer.as_ref().is_ok_and(|answer| answer.status == 202) {
                    return;
                }
                assert!(Instant::now() < deadline, "{step}: the call is never accepted: {answer:?}");
                eprintln!("{step}: the call is repeated after {answer:?}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        });
        let frozen = tokio::task::spawn_blocking(move || heard.recv_timeout(PATIENCE)).await.unwrap();
        if frozen.is_err() {
            let operations = kills.call(1, "GET", &format!("/v1/operations?tenant={slug}"), None);
            panic!("no control plane began {step}: {:?}", try_send(operations).await);
        }
        for process in &kills.bed.control {
            process.spare();
        }
        let written = format!("SELECT count(*) FROM tenants WHERE slug = '{slug}'");
        assert_eq!(kills.bed.registry_number(&written).await, 1);
        let ended = format!(
            "SELECT count(*) FROM operations o JOIN tenants t ON t.id = o.tenant_id WHERE t.slug = '{slug}' AND o.state = 'done'"
        );
        let deadline = Instant::now() + PATIENCE;
        while kills.bed.registry_number(&ended).await == 0 {
            assert!(Instant::now() < deadline, "{step}: nobody took over");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        for process in &kills.bed.control {
            process.thaw();
        }
        asked.await.unwrap();
        assert_eq!(kills.tenant(&slug).await["status"], "active");
    }
    // Both work again, and together made exactly one of each.
    kills.bed.tenant("last").await;
    assert_eq!(kills.bed.registry_number("SELECT count(*) FROM databases").await, steps.len() + 1);
    kills.bed.assert_healthy().await;
}

/// It is one commit: killed at whatever moment of it, the call is made again and has one answer.
async fn a_restore_survives_a_kill(store: Store) {
    let tuning = Tuning { tenants: "grace_seconds = 3600\nlease_seconds = 1\n", ..TUNING };
    let bed = Bed::start_with(store, 2, 0, tuning).await;
    bed.tenant("acme").await;
    let mut kills = Kills { bed, counts: BTreeMap::new() };
    for says in RESTORE {
        let deleted = send(kills.call(1, "DELETE", "/v1/tenants/acme", None)).await;
        assert_eq!(deleted.status, 202, "{deleted:?}");
        let [first, again] = [0, 1].map(|at| {
            let call = kills.call(at, "POST", "/v1/tenants/acme/restore", None);
            call.header("idempotency-key", says.replace(' ', "-"))
        });
        let (sprung, heard) = channel();
        kills.bed.control[0].kill_at(sprung, move |line| line["message"] == says);
        let asked = tokio::spawn(first.send());
        let killed = tokio::task::spawn_blocking(move || heard.recv_timeout(PATIENCE)).await.unwrap();
        assert!(killed.is_ok(), "a restore never came to {says:?}");
        kills.count("restore", Point { step: "restore".to_owned(), is_undo: false, says });
        drop(asked.await);
        let mut again = send(again).await;
        if again.kind() == "request-in-progress" {
            // The dead one had the key and no answer: nothing was recorded, so that nothing was done.
            again = send(kills.call(1, "POST", "/v1/tenants/acme/restore", None)).await;
        }
        assert_eq!((again.status, &again.json()["status"]), (200, &json!("active")), "{says}: {again:?}");
        kills.bed.control[0].restart();
    }
    let hit = RESTORE.map(|says| Point { step: "restore".to_owned(), is_undo: false, says });
    kills.assert_hit("restore", &hit);
    let bed = kills.bed;
    let cancelled = "SELECT count(*) FROM operations WHERE kind = 'delete' AND state = 'cancelled'";
    assert_eq!(bed.registry_number(cancelled).await, RESTORE.len(), "each deletion was called off once");
    assert_eq!(bed.registry_number("SELECT count(*) FROM operations WHERE finished_at IS NULL").await, 0);
    bed.assert_healthy().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_on_sqlite() {
    a_restore_survives_a_kill(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_on_postgres() {
    a_restore_survives_a_kill(Store::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    every_long_action_survives_a_kill_at_every_step(Store::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres() {
    every_long_action_survives_a_kill_at_every_step(Store::Postgres).await;
}
