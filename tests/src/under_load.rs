//! A rollout under load: each tenant is written to and read from at two data planes, again and again, while a rollout brings all
//! of them from the oldest schema version to the newest.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::RequestBuilder;
use serde_json::json;
use tokio::sync::watch;

use crate::bed::{Answer, Bed, Store, Tenant, try_send};

/// Requests that are under way at once, at most.
const CALLERS: usize = 16;
/// A rollout of a large fleet takes its time beside so many requests.
const PATIENCE: Duration = Duration::from_mins(5);
/// The data plane whose product serves every schema version, and the one whose product needs the newest.
const EVERY: usize = 0;
const NEWEST: usize = 1;

/// What came of the requests to one data plane.
#[derive(Debug, Default)]
pub struct Seen {
    /// All that were sent.
    pub requests: usize,
    /// Those that were told to come again, for the tenant's database was behind.
    pub behind: usize,
    /// Whatever else was not answered with a 2xx, in words.
    pub failures: Vec<String>,
    /// How long the longest took.
    pub longest: Duration,
}

/// What came of a rollout under load.
#[derive(Debug, Default)]
pub struct Loaded {
    /// At the data plane whose product serves every schema version: it has no reason to refuse anybody.
    pub every: Seen,
    /// At the data plane whose product needs the newest: it refuses whoever is behind, and nobody whom it has once served.
    pub newest: Seen,
    /// The tenants with how many pets each was told to have been created.
    pub created: Vec<(Tenant, usize)>,
    /// How long the rollout took.
    pub took: Duration,
}

/// So many tenants on Postgres at the oldest schema version, and the two data planes.
pub async fn fleet(tenants: usize) -> (Bed, Vec<Tenant>) {
    let mut bed = Bed::start(Store::Postgres, 1, 1).await;
    // The server has room for a connection to every tenant's database from each data plane.
    bed.done("PUT", "/v1/plans/test", Some(json!({ "connections": 1, "concurrency": 256 }))).await;
    let control = bed.control[0].url.clone();
    bed.add_node_of("next-data-plane", &control);
    bed.new_tenants_get(1).await;
    let tenants = bed.tenants(tenants).await;
    (bed, tenants)
}

/// Brings the fleet to the newest version while it is asked. Each tenant is asked before it begins, and once more when both data
/// planes have heard of its end.
pub async fn roll(bed: &Bed, tenants: &[Tenant]) -> Loaded {
    let share = tenants.len().div_ceil(CALLERS);
    let mut callers: Vec<Caller<'_>> = tenants.chunks(share).map(|tenants| Caller::of(bed, tenants)).collect();
    join_all(callers.iter_mut().map(Caller::round)).await;
    let (ended, has_ended) = watch::channel(false);
    let calls = callers.iter_mut().map(async |caller| {
        while !*has_ended.borrow() {
            caller.round().await;
        }
    });
    let rollout = async {
        let begun = Instant::now();
        let rollout = bed.done("POST", "/v1/rollouts", Some(json!({}))).await;
        let id = rollout["id"].as_str().unwrap();
        let rollout = bed.until_rollout_within(PATIENCE, id, |now| now["state"] != "running").await;
        assert_eq!(
            (&rollout["state"], &rollout["counts"]["done"]),
            (&json!("done"), &json!(tenants.len())),
            "{rollout}"
        );
        let took = begun.elapsed();
        for tenant in tenants {
            bed.until(tenant, "/api/pets", 200).await;
        }
        ended.send_replace(true);
        took
    };
    let (_, took) = tokio::join!(join_all(calls), rollout);
    join_all(callers.iter_mut().map(Caller::last_round)).await;
    callers.into_iter().fold(Loaded { took, ..Loaded::default() }, Caller::told)
}

/// One who asks for some of the tenants, one request after the other.
struct Caller<'a> {
    bed: &'a Bed,
    tenants: &'a [Tenant],
    /// By the data plane.
    seen: [Seen; 2],
    /// For each of the tenants, which data planes have no reason any more to refuse it.
    is_served: Vec<[bool; 2]>,
    created: Vec<usize>,
}

impl<'a> Caller<'a> {
    fn of(bed: &'a Bed, tenants: &'a [Tenant]) -> Self {
        let mut is_served = [false; 2];
        is_served[EVERY] = true;
        let (is_served, created) = (vec![is_served; tenants.len()], vec![0; tenants.len()]);
        Self { bed, tenants, seen: <[Seen; 2]>::default(), is_served, created }
    }

    /// A write and a read of each tenant at each data plane.
    async fn round(&mut self) {
        for (at, tenant) in self.tenants.iter().enumerate() {
            for node in [EVERY, NEWEST] {
                let pet = json!({ "name": "Rex", "species": "dog" });
                let write = self.bed.request(node, "POST", "/api/pets").json(&pet);
                self.created[at] += usize::from(self.ask(at, node, write.bearer_auth(&tenant.key)).await);
                let read = self.bed.request(node, "GET", "/api/pets");
                self.ask(at, node, read.bearer_auth(&tenant.key)).await;
            }
        }
    }

    /// A round in which nobody may be refused.
    async fn last_round(&mut self) {
        self.is_served.fill([true; 2]);
        self.round().await;
    }

    /// Answers whether it was answered with a 2xx.
    async fn ask(&mut self, at: usize, node: usize, request: RequestBuilder) -> bool {
        let begun = Instant::now();
        let answer = try_send(request).await;
        let (seen, is_served) = (&mut self.seen[node], &mut self.is_served[at][node]);
        seen.requests += 1;
        seen.longest = seen.longest.max(begun.elapsed());
        match answer {
            Ok(answer) if (200..300).contains(&answer.status) => {
                *is_served = true;
                return true;
            }
            Ok(answer) if is_behind(&answer) && !*is_served => seen.behind += 1,
            other => {
                let slug = &self.tenants[at].slug;
                seen.failures.push(format!("{slug} at data plane {node}, served before: {is_served}: {other:?}"));
            }
        }
        false
    }

    /// Adds what it saw.
    fn told(mut loaded: Loaded, caller: Self) -> Loaded {
        let [every, newest] = caller.seen;
        loaded.every.add(every);
        loaded.newest.add(newest);
        loaded.created.extend(caller.tenants.iter().cloned().zip(caller.created));
        loaded
    }
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.behind += other.behind;
        self.failures.extend(other.failures);
        self.longest = self.longest.max(other.longest);
    }
}

/// The answer of the schema gate, which says when to come again.
fn is_behind(answer: &Answer) -> bool {
    let is_later = answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0);
    (answer.status, answer.kind().as_str()) == (503, "schema-behind") && is_later
}
