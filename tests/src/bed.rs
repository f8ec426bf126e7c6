//! Planes for one test, their registry, and the calls that tests make of them.

mod answer;
mod registry;
mod servers;

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{Process, folder};
pub use answer::{Answer, send, try_send};

/// The token that makes the first admin.
pub const BOOTSTRAP: &str = "operator-token-of-the-tests";
/// The data planes' token.
pub const NODE: &str = "node-token-of-the-tests";
/// Two rings' keys; nothing real is sealed with them.
const TENANTS_KEY: &str = "dGVuYW50cy1rZXktb2YtdGhlLXRlc3RzLTMyLWJ5dGU=";
const SERVERS_KEY: &str = "c2VydmVycy1rZXktb2YtdGhlLXRlc3RzLTMyLWJ5dGU=";
/// An old key of the tenants' ring, which nothing is sealed with but by a test.
const OLD_KEY: &str = "b2xkLWtleS1vZi10aGUtdGVzdHMtd2l0aC0zMi1ieXQ=";
/// Signs the audit trail's checkpoints.
pub const SIGNING_KEY: &str = "YXVkaXQta2V5LW9mLXRoZS10ZXN0cy1vZi0zMi1ieXQ=";
/// What is waited for comes well within this, or not at all.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Where registry and tenants are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Files of the test's own folder.
    Sqlite,
    /// Databases of their own on the test run's server.
    Postgres,
}

/// What a test's control planes are told beyond what all are.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Lines of `[tenants]`.
    pub tenants: &'static str,
    /// Lines of `[telemetry]`, of data planes too.
    pub telemetry: &'static str,
    /// Whole sections.
    pub sections: &'static str,
    /// Lines of `[domains]`.
    pub domains: &'static str,
    /// The data planes' `[[tokens.issuers]]`.
    pub issuers: &'static str,
    /// Whole sections of the data planes'.
    pub data: &'static str,
}

impl Tuning {
    /// What is deleted goes at once.
    pub const DEFAULT: Self = Self {
        tenants: "grace_seconds = 0\n",
        telemetry: "",
        sections: "",
        domains: "proof = \"none\"\n",
        issuers: "",
        data: "",
    };
}

/// Planes of one test.
pub struct Bed {
    /// The control planes, all on one registry.
    pub control: Vec<Process>,
    /// The data planes; each follows one of the control planes.
    pub data: Vec<Process>,
    /// Where registry and tenants are.
    pub store: Store,
    /// The test's own folder.
    pub folder: TempDir,
    registry_url: String,
    tuning: Tuning,
    /// An admin's token.
    pub token: String,
    /// Speaks to the planes.
    pub client: Client,
}

/// A tenant and its key.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its id.
    pub id: String,
    /// Its slug.
    pub slug: String,
    /// Its first key.
    pub key: String,
}

impl Bed {
    /// Starts so many planes.
    pub async fn start(store: Store, control: usize, data: usize) -> Self {
        Self::start_with(store, control, data, Tuning::DEFAULT).await
    }

    /// Starts so many planes, tuned.
    pub async fn start_with(store: Store, control: usize, data: usize, tuning: Tuning) -> Self {
        let mut bed = Self::start_of("petstore-control-plane", store, control, tuning).await;
        for number in 0..data {
            let control = bed.control[number % control].url.clone();
            bed.add_node(&control);
            bed.until_ready(number).await;
        }
        bed
    }

    /// Until a node has heard its control plane: before that it knows no credential, and says so.
    pub async fn until_ready(&self, node: usize) {
        let deadline = Instant::now() + PATIENCE;
        let path = format!("{}/readyz", self.data[node].ops_url);
        while try_send(self.client.get(&path)).await.is_ok_and(|answer| answer.status != 200) {
            assert!(Instant::now() < deadline, "node {node} does not get ready");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Starts so many control planes of a product, and no data plane.
    pub async fn start_of(binary: &'static str, store: Store, control: usize, tuning: Tuning) -> Self {
        // Whoever comes first installs it for all tests of the process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let (registry, server) = sections(store, &folder);
        let registry_url = registry["url"].as_str().unwrap().to_owned();
        let mut bed = Self {
            control: Vec::new(),
            data: Vec::new(),
            store,
            registry_url,
            tuning,
            token: BOOTSTRAP.to_owned(),
            client: Client::builder().no_proxy().build().unwrap(),
            folder,
        };
        for number in 0..control {
            let create = registry["create_from"].as_str();
            let create = create.map_or_else(String::new, |url| format!("create_from = \"{url}\"\n"));
            let text = format!(
                "{}\n{}\n[registry]\nurl = \"{}\"\n{create}\n[tokens]\nbootstrap = \"{BOOTSTRAP}\"\nnode = \"{NODE}\"\n\
                 allow_private_issuers = true\n\n{}\n{}\n\
                 [audit]\ncheckpoint_seconds = 1\n{}\n[tenants]\n{}\n[domains]\nbase_domain = \"pets.test\"\n{}\n{}\n{server}",
                common(),
                tuning.telemetry,
                bed.registry_url,
                ring("servers", SERVERS_KEY),
                ring("tenants", TENANTS_KEY),
                format_args!("signing = {{ primary = \"a1\", keys = {{ a1 = \"{SIGNING_KEY}\" }} }}\n"),
                tuning.tenants,
                tuning.domains,
                tuning.sections,
            );
            let config = bed.write(&format!("control-{number}.toml"), &text);
            bed.control.push(Process::start(binary, &config));
        }
        bed.token = bed.new_operator("tests", "admin").await;
        bed.done("PUT", "/v1/plans/test", Some(json!({ "connections": 2, "concurrency": 256 }))).await;
        bed
    }

    /// Starts one more data plane, which follows the control plane at this URL.
    pub fn add_node(&mut self, control: &str) {
        self.add_node_of("petstore-data-plane", control);
    }

    /// As [`Bed::add_node`], of another product.
    pub fn add_node_of(&mut self, binary: &'static str, control: &str) {
        self.add_node_by(Command::new(folder().join(binary)), binary, control);
    }

    /// As [`Bed::add_node_of`], by this command.
    pub fn add_node_by(&mut self, command: Command, binary: &'static str, control: &str) {
        let number = self.data.len();
        let state = self.folder.path().join(format!("node-{number}"));
        let text = format!(
            "{}\n{}\n[control]\nurl = \"{control}\"\nnode_token = \"{NODE}\"\n\n{}\n[node]\nstate_dir = \"{}\"\ntell_uses_seconds = 1\n\n\
             [names]\nbase_domain = \"pets.test\"\n\n[listen.proxies]\ntrusted = [\"127.0.0.2/32\"]\n\n[tokens]\nallow_private_issuers = true\n{}\n{}\n",
            common(),
            self.tuning.telemetry,
            ring("tenants", TENANTS_KEY),
            state.display(),
            self.tuning.issuers,
            self.tuning.data,
        );
        let config = self.write(&format!("data-{number}.toml"), &text);
        self.data.push(Process::start_by(command, binary, &config, &[]));
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// All items of a list, whose path may have a query; page by page, of so many at most.
    pub async fn all(&self, path: &str, limit: usize) -> Vec<Value> {
        let begins = if path.contains('?') { '&' } else { '?' };
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.done("GET", &format!("{path}{begins}limit={limit}{cursor}"), None).await;
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next_cursor"].as_str() else { return items };
            cursor = format!("&cursor={next}");
        }
    }

    /// What differs between the registry and the servers.
    pub async fn findings(&self) -> Vec<Value> {
        let (mut findings, mut cursor) = (Vec::new(), Value::Null);
        loop {
            let page = self.done("POST", "/v1/doctor", Some(json!({ "cursor": cursor }))).await;
            findings.extend(page["findings"].as_array().unwrap().iter().cloned());
            cursor = page["next_cursor"].clone();
            if cursor.is_null() {
                return findings;
            }
        }
    }

    /// Nothing differs between the registry and the servers.
    pub async fn assert_healthy(&self) {
        assert_eq!(self.findings().await, [] as [Value; 0]);
    }

    /// A new operator's token.
    pub async fn new_operator(&self, name: &str, role: &str) -> String {
        let made = self.done("POST", "/v1/operators", Some(json!({ "name": name, "role": role }))).await;
        made["token"].as_str().unwrap().to_owned()
    }

    /// A call of an operator, to the first control plane.
    pub async fn operator(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.operator_at(0, method, path, body).await
    }

    /// A call of an operator, to one of the control planes.
    pub async fn operator_at(&self, at: usize, method: &str, path: &str, body: Option<Value>) -> Answer {
        let call = self.client.request(method.parse().unwrap(), format!("{}{path}", self.control[at].url));
        let call = call.bearer_auth(&self.token).header("prefer", "wait=30");
        send(match body {
            Some(body) => call.json(&body),
            None => call,
        })
        .await
    }

    /// A call that must succeed.
    pub async fn done(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.operator(method, path, body).await;
        assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
        answer.json()
    }

    /// Until an operation has ended.
    pub async fn until_ended(&self, id: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let operation = self.done("GET", &format!("/v1/operations/{id}"), None).await;
            if operation["finished_at"].is_string() {
                return;
            }
            assert!(Instant::now() < deadline, "it does not end: {operation}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until a rollout is as it should be.
    pub async fn until_rollout(&self, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.look_at_rollout(PATIENCE, Duration::from_millis(20), id, is_so).await
    }

    /// As [`Bed::until_rollout`], of a fleet that takes longer: it is looked at as often as `freehold fleet watch` does, for a
    /// look costs the registry as much as a target or two.
    pub async fn until_rollout_within(&self, patience: Duration, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        self.look_at_rollout(patience, Duration::from_millis(300), id, is_so).await
    }

    async fn look_at_rollout(
        &self,
        patience: Duration,
        pause: Duration,
        id: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + patience;
        loop {
            let rollout = self.done("GET", &format!("/v1/rollouts/{id}"), None).await;
            if is_so(&rollout) {
                return rollout;
            }
            assert!(Instant::now() < deadline, "it does not get there: {rollout}");
            tokio::time::sleep(pause).await;
        }
    }

    /// A new active tenant with a key, on a plan whose few connections leave room for all tests on one server.
    pub async fn tenant(&self, slug: &str) -> Tenant {
        self.tenant_on("test", slug).await
    }

    /// A new active tenant with a key, on this plan.
    pub async fn tenant_on(&self, plan: &str, slug: &str) -> Tenant {
        self.tenant_of(plan, None, slug).await
    }

    /// So many of [`Bed::tenant`], `tenant-0` and on; some are made at once.
    pub async fn tenants(&self, count: usize) -> Vec<Tenant> {
        let slugs = (0..count).map(|number| format!("tenant-{number}"));
        stream::iter(slugs).map(|slug| async move { self.tenant(&slug).await }).buffered(4).collect().await
    }

    /// A request to a data plane, to be completed.
    pub fn request(&self, node: usize, method: &str, path: &str) -> RequestBuilder {
        let method: Method = method.parse().unwrap();
        self.client.request(method, format!("{}{path}", self.data[node].url))
    }

    /// A tenant's GET, by its credential alone.
    pub async fn get(&self, node: usize, tenant: &Tenant, path: &str) -> Answer {
        send(self.request(node, "GET", path).bearer_auth(&tenant.key)).await
    }

    /// Until a tenant's GET is answered with this status, on every node.
    pub async fn until(&self, tenant: &Tenant, path: &str, status: u16) {
        for node in 0..self.data.len() {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let answer = self.get(node, tenant, path).await;
                if answer.status == status {
                    break;
                }
                assert!(Instant::now() < deadline, "node {node} still answers {answer:?} and not {status}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// The sum of a counter's or gauge's series on a node.
    pub async fn metric(&self, node: usize, name: &str) -> f64 {
        self.metric_of(&self.data[node], name).await
    }

    /// The same on the first control plane.
    pub async fn control_metric(&self, name: &str) -> f64 {
        self.metric_of(&self.control[0], name).await
    }

    async fn metric_of(&self, process: &Process, name: &str) -> f64 {
        let answer = send(self.client.get(format!("{}/metrics", process.ops_url))).await;
        let series =
            answer.text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])));
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

fn common() -> String {
    "[listen]\naddress = \"127.0.0.1:0\"\nops_address = \"127.0.0.1:0\"\n\n[lifecycle]\ndrain_seconds = 5\n\n\
     [telemetry]\nformat = \"json\"\n"
        .to_owned()
}

fn ring(name: &str, key: &str) -> String {
    format!("[seal.{name}]\nprimary = \"k1\"\nkeys = {{ k1 = \"{key}\", k0 = \"{OLD_KEY}\" }}\n")
}

fn sections(store: Store, folder: &TempDir) -> (Value, String) {
    let (registry, engine, admin_url) = match store {
        Store::Sqlite => {
            let tenants = folder.path().join("tenants");
            std::fs::create_dir(&tenants).unwrap();
            let url = format!("sqlite://{}?mode=rwc", folder.path().join("registry.db").display());
            (json!({ "url": url }), "sqlite", format!("sqlite://{}", tenants.display()))
        }
        Store::Postgres => {
            let admin = std::env::var("FREEHOLD_TEST_POSTGRES_URL")
                .expect("run this by `cargo xtask test`, which starts a Postgres");
            let name = format!("registry_{}", uuid::Uuid::new_v4().simple());
            let url = format!("{}/{name}", admin.rsplit_once('/').unwrap().0);
            (json!({ "url": url, "create_from": admin }), "postgres", admin)
        }
    };
    let server = format!(
        "[[servers]]\nname = \"local\"\nengine = \"{engine}\"\nregion = \"here\"\nadmin_url = \"{admin_url}\"\n\
         capacity = 1000\nconnection_budget = 100\nwarm = 0\n"
    );
    (registry, server)
}
