//! Tenants under load: what they are answered, and whether their databases have in the end what was acknowledged.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures_util::future::join;
use reqwest::{Client, RequestBuilder};
use serde_json::json;
use tokio::task::JoinSet;

use super::{HUNG, until};
use crate::bed::{Answer, Bed, PATIENCE, Tenant, try_send};
use crate::postgres::{Postgres, number};

/// Clients that ask for the others.
const CLIENTS: usize = 8;
/// Clients that ask for the tenants in trouble.
const THEIR_CLIENTS: usize = 4;

/// Tenants that see nothing of what befalls the tenants in trouble.
pub(super) struct Others<'a> {
    bed: &'a Bed,
    server: &'a Postgres,
    tenants: Vec<Tenant>,
    /// Their databases' names.
    databases: Vec<String>,
    /// Pets in each database before all load.
    before: Vec<i64>,
    /// Pets of each tenant that were acknowledged since.
    created: Vec<i64>,
    /// The longest request of the first load, in which no tenant was in trouble.
    calm: Option<Duration>,
}

impl<'a> Others<'a> {
    /// Has all tenants served, and puts them under load in a calm. Their server has too few connections for all of them.
    pub(super) async fn new(bed: &'a Bed, name: &str, server: &'a Postgres, tenants: Vec<Tenant>) -> Self {
        let shown = bed.done("GET", &format!("/v1/servers/{name}"), None).await;
        let budget = shown["connection_budget"].as_u64().unwrap();
        assert!(budget < tenants.len() as u64, "there are connections for all of them: {shown}");
        until(bed, "GET", &tenants, 200).await;
        let mut databases = Vec::new();
        for tenant in &tenants {
            databases.push(bed.registry_row(tenant).await.0);
        }
        let created = vec![0; tenants.len()];
        let mut others = Self { bed, server, tenants, databases, before: Vec::new(), created, calm: None };
        others.before = others.count().await;
        others.beside(&[], "all was calm", async |load: &Load| load.turn().await).await;
        others
    }

    /// Has a fault begin, show and end while all tenants are under load. Each of the others is served before the fault begins and
    /// after it ended. None of them sees anything of it. Answers what the tenants in trouble saw.
    pub(super) async fn beside(&mut self, troubled: &[Tenant], during: &str, fault: impl AsyncFnOnce(&Load)) -> Seen {
        let load = Load::begin(self.bed, &self.tenants, CLIENTS);
        let theirs = Load::begin(self.bed, troubled, THEIR_CLIENTS);
        load.turn().await;
        Box::pin(fault(&load)).await;
        load.turn().await;
        let (seen, theirs) = join(load.end(), theirs.end()).await;
        seen.assert_served("the others", during);
        let (longest, calm) = (seen.longest, *self.calm.get_or_insert(seen.longest));
        assert!(longest < HUNG, "a request of another took {longest:?} while {during}, and at most {calm:?} in a calm");
        assert_eq!(theirs.strange.first, None, "a tenant in trouble was not told to come again while {during}");
        for (created, more) in self.created.iter_mut().zip(seen.created) {
            *created += more;
        }
        theirs
    }

    /// Each database has the pets that were acknowledged, and no others.
    pub(super) async fn assert_kept(&self) {
        let now = self.count().await;
        for (at, tenant) in self.tenants.iter().enumerate() {
            assert_eq!(now[at], self.before[at] + self.created[at], "the pets of {}", tenant.slug);
        }
    }

    async fn count(&self) -> Vec<i64> {
        let mut pets = Vec::new();
        for database in &self.databases {
            let db = self.server.look(database).await;
            pets.push(number(&db, "SELECT count(*) FROM pets").await);
            db.close().await.unwrap();
        }
        pets
    }
}

/// Clients that ask for some tenants in turn, until the load ends: a write and a read of each.
pub(super) struct Load {
    asked: Arc<Asked>,
    clients: JoinSet<Seen>,
}

/// What all clients of a load share.
struct Asked {
    client: Client,
    pets: String,
    tenants: Vec<Tenant>,
    /// For each tenant, the newest turn in which it was asked and answered.
    turns: Vec<AtomicUsize>,
    /// The newest turn.
    turn: AtomicUsize,
    is_over: AtomicBool,
}

impl Load {
    fn begin(bed: &Bed, tenants: &[Tenant], clients: usize) -> Self {
        let asked = Arc::new(Asked {
            client: bed.client.clone(),
            pets: format!("{}/api/pets", bed.data[0].url),
            tenants: tenants.to_vec(),
            turns: tenants.iter().map(|_| AtomicUsize::new(0)).collect(),
            turn: AtomicUsize::new(0),
            is_over: AtomicBool::new(false),
        });
        let firsts = (0..clients).map(|client| client * tenants.len() / clients);
        let clients = firsts.map(|first| go_round(Arc::clone(&asked), first)).collect();
        Self { asked, clients }
    }

    /// Until each tenant was asked and answered once more. The request began after this call.
    pub(super) async fn turn(&self) {
        let turn = self.asked.turn.fetch_add(1, SeqCst) + 1;
        let deadline = Instant::now() + PATIENCE;
        while let Some(at) = self.asked.turns.iter().position(|last| last.load(SeqCst) < turn) {
            assert!(Instant::now() < deadline, "{} is not answered", self.asked.tenants[at].slug);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Awaits requests that hang, and answers what came of them. Each of the others is served before that.
    pub(super) async fn turn_before<T: Debug>(&self, hung: impl Future<Output = T>) -> T {
        let mut hung = Box::pin(hung);
        tokio::select! {
            answer = &mut hung => panic!("it came before a turn of the others was over: {answer:?}"),
            () = self.turn() => {}
        }
        hung.await
    }

    async fn end(self) -> Seen {
        self.asked.is_over.store(true, SeqCst);
        let nothing = Seen::of(self.asked.tenants.len());
        self.clients.join_all().await.into_iter().fold(nothing, Seen::and)
    }
}

/// One client, which begins with this tenant.
async fn go_round(asked: Arc<Asked>, first: usize) -> Seen {
    let mut seen = Seen::of(asked.tenants.len());
    for at in (0..asked.tenants.len()).cycle().skip(first) {
        if asked.is_over.load(SeqCst) {
            break;
        }
        let (tenant, turn) = (&asked.tenants[at], asked.turn.load(SeqCst));
        for request in asked.requests(tenant) {
            let begun = Instant::now();
            let answer = try_send(request).await;
            seen.note((at, tenant), begun.elapsed(), &answer);
        }
        asked.turns[at].fetch_max(turn, SeqCst);
    }
    seen
}

impl Asked {
    fn requests(&self, tenant: &Tenant) -> [RequestBuilder; 2] {
        let write = self.client.post(&self.pets).json(&json!({ "name": "Rex", "species": "dog" }));
        [write, self.client.get(&self.pets)].map(|request| request.bearer_auth(&tenant.key))
    }
}

/// What requests came to.
#[derive(Debug, Default)]
pub(super) struct Seen {
    requests: usize,
    longest: Duration,
    /// Pets that were acknowledged, for each tenant.
    created: Vec<i64>,
    /// 503 with the time to come again.
    refused: Failures,
    /// All other answers but successes.
    strange: Failures,
}

/// How many there were, and the first in words.
#[derive(Debug, Default)]
struct Failures {
    count: usize,
    first: Option<String>,
}

impl Seen {
    fn of(tenants: usize) -> Self {
        Self { created: vec![0; tenants], ..Self::default() }
    }

    fn note(&mut self, (at, tenant): (usize, &Tenant), took: Duration, answer: &reqwest::Result<Answer>) {
        self.requests += 1;
        self.longest = self.longest.max(took);
        match answer {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) if answer.status == 201 => self.created[at] += 1,
            Ok(answer) if answer.status == 503 && !answer.header("retry-after").is_empty() => {
                self.refused.note(tenant, answer);
            }
            other => self.strange.note(tenant, other),
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.requests += other.requests;
        self.longest = self.longest.max(other.longest);
        for (created, more) in self.created.iter_mut().zip(other.created) {
            *created += more;
        }
        self.refused.add(other.refused);
        self.strange.add(other.strange);
        self
    }

    /// All requests of these tenants succeeded.
    pub(super) fn assert_served(&self, whose: &str, during: &str) {
        for failures in [&self.strange, &self.refused] {
            let (count, all) = (failures.count, self.requests);
            assert_eq!(failures.first, None, "{count} of {all} requests of {whose} failed while {during}");
        }
    }
}

impl Failures {
    fn note(&mut self, tenant: &Tenant, answer: &impl Debug) {
        self.count += 1;
        if self.first.is_none() {
            self.first = Some(format!("{}: {answer:?}", tenant.slug));
        }
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.take().or(other.first);
    }
}
