//! Many tenants on one Postgres of the bench's own, and the planes that serve them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use end_to_end::bed::{Bed, Store, Tenant, Tuning, try_send};
use end_to_end::postgres::{Postgres, number};
use futures_util::{StreamExt as _, stream};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use sea_orm::DatabaseConnection;
use serde_json::{Value, json};

use super::crowd::Asked;

/// What a plan of the bench gives each tenant on each node.
const CONNECTIONS: u32 = 4;
const AT_ONCE: usize = 8;
/// All clients have one address, and a data plane that has just started knows no key yet.
pub(super) const DATA: &str = "[strangers]\nper_second = 100000\nburst = 1000000\n";
/// Sessions that the control plane needs on the server while no data plane runs: it looks for what the data planes have left,
/// with one or two sessions at a time. These come and go. So many slots are left free for them, beside those for others.
pub(super) const CONTROL: u32 = 4;
/// How long a state of the server is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// Roles that are not as the bench relies on: `admin` is a superuser and no other role is. The control plane and the bench log in
/// as `admin`, and tenants, plain pools and PgBouncer do not.
const WRONG_ROLES: &str = "SELECT count(*) FROM pg_roles WHERE rolsuper <> (rolname = 'admin')";
/// Connections of roles that are not superusers.
const OTHERS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename <> 'admin'";
/// Connections of the bench itself.
const OWN: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE backend_type = 'client backend' AND usename = 'admin' AND application_name NOT LIKE 'freehold%'";
/// Connections of the control plane.
const CONTROL_HAS: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE backend_type = 'client backend' AND usename = 'admin' AND application_name LIKE 'freehold%'";
/// Ends those that the control plane does not use now.
const END_IDLE: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
    WHERE usename = 'admin' AND application_name LIKE 'freehold%' AND state = 'idle'";
/// Slots for roles that are not superusers. Postgres refuses such a role when no more slots are free than these settings reserve,
/// so all slots but the reserved ones can be taken. The second setting is new in Postgres 16.
const SLOTS: &str = "SELECT current_setting('max_connections')::int8 \
    - current_setting('superuser_reserved_connections')::int8 \
    - coalesce(current_setting('reserved_connections', true), '0')::int8";

/// All of it.
pub(crate) struct Town {
    pub(crate) bed: Bed,
    pub(crate) server: Postgres,
    pub(crate) tenants: Vec<Tenant>,
    /// Of each tenant: what a data plane dials.
    pub(super) urls: Vec<String>,
    /// For the harness.
    pub(super) admin: DatabaseConnection,
}

/// A plan that leaves requests to themselves, and one whose limit is reached.
pub(super) async fn plans(bed: &Bed) {
    let free = json!({ "connections": CONNECTIONS, "concurrency": 512 });
    bed.done("PUT", "/v1/plans/crowd", Some(free)).await;
    let bounded =
        json!({ "connections": CONNECTIONS, "concurrency": 64, "requests": 10, "window_seconds": 1, "burst": 10 });
    bed.done("PUT", "/v1/plans/bounded", Some(bounded)).await;
}

impl Town {
    pub(crate) async fn build(tenants: usize, nodes: usize, budget: u32) -> Self {
        // Room for the data planes (380), for a plain pool for each of 100 tenants (300) and for one large pool (32). So many
        // slots are reserved for superusers that the server never refuses the control plane or the bench.
        let server =
            Postgres::start_with(&["max_connections=900", "superuser_reserved_connections=40", "shared_buffers=256MB"]);
        let bed = Bed::start_with(Store::Sqlite, 1, nodes, Tuning { data: DATA, ..Tuning::DEFAULT }).await;
        let fields = json!({ "region": "there", "capacity": 20_000, "connection_budget": budget });
        bed.register("town", &server.url(), &fields).await;
        plans(&bed).await;
        let admin = server.look("postgres").await;
        let mut town = Self { bed, server, tenants: Vec::new(), urls: Vec::new(), admin };
        town.grow(tenants).await;
        town
    }

    /// More tenants, until there are so many.
    pub(super) async fn grow(&mut self, tenants: usize) {
        let bed = &self.bed;
        let made = stream::iter(self.tenants.len()..tenants).map(async |number| {
            let tenant = bed.tenant_of("crowd", Some("there"), &format!("town-{number}")).await;
            if number % 100 == 99 {
                eprintln!("{} tenants", number + 1);
            }
            tenant
        });
        let made: Vec<Tenant> = made.buffered(AT_ONCE).collect().await;
        self.tenants.extend(made);
        let mut urls: HashMap<String, String> = self.bed.open_urls_by_tenant().await.into_iter().collect();
        self.urls = self.tenants.iter().map(|tenant| urls.remove(&tenant.id).unwrap()).collect();
    }

    pub(super) fn add_nodes(&mut self, nodes: usize) {
        let control = self.bed.control[0].url.clone();
        for _ in 0..nodes {
            self.bed.add_node(&control);
        }
    }

    pub(super) async fn set_budget(&self, budget: u32) {
        self.bed.done("PATCH", "/v1/servers/town", Some(json!({ "connection_budget": budget }))).await;
        self.until_dealt(budget).await;
    }

    /// Until all that may be opened is dealt to the nodes that run, and none of them has more than its share.
    pub(crate) async fn until_dealt(&self, budget: u32) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A node gets a share when it has requests. One request may fail: a restarted node has closed this client's connection.
            for node in 0..self.bed.data.len() {
                let _ = try_send(self.bed.request(node, "GET", "/api/pets").bearer_auth(&self.tenants[node].key)).await;
            }
            let shown = self.bed.done("GET", "/v1/servers/town", None).await;
            let shares = shown["connections"]["shares"].as_array().unwrap();
            let dealt: u64 = shares.iter().filter_map(|share| share["share"].as_u64()).sum();
            // A share that was made smaller is dealt at once. The node closes connections after it has heard of that.
            let is_settled = |share: &Value| share["is_leaving"] != true && share["held"] == share["share"];
            if dealt == u64::from(budget) && shares.iter().all(is_settled) {
                return;
            }
            assert!(Instant::now() < deadline, "the budget is not dealt: {shown}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a crowd asks the data planes.
    pub(super) fn asked(&self) -> Asked {
        let nodes = self.bed.data.iter().map(|node| node.url.clone()).collect();
        Asked { nodes, headers: self.tenants.iter().map(bearer).collect() }
    }

    /// Takes slots of the server until what is returned is dropped. Roles that are not superusers can then have so many
    /// connections, and up to [`CONTROL`] more: one for each session that the control plane has fewer. No data plane may run.
    pub(super) async fn leave_only(&self, connections: u32) -> Vec<DatabaseConnection> {
        assert_eq!(number(&self.admin, WRONG_ROLES).await, 0, "the admin is a superuser, and no other role is");
        self.until_alone().await;
        // Sessions of superusers take slots, too. Those of the control plane come and go, and have their own.
        let free = number(&self.admin, SLOTS).await - number(&self.admin, OWN).await;
        let mut fillers = Vec::new();
        for _ in 0..free - i64::from(connections + CONTROL) {
            fillers.push(self.server.look("postgres").await);
        }
        fillers
    }

    /// Until only the superuser has connections, and the control plane no more of them than [`CONTROL`].
    async fn until_alone(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (others, control) = (number(&self.admin, OTHERS).await, number(&self.admin, CONTROL_HAS).await);
            if others == 0 && control <= i64::from(CONTROL) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the server still has {others} connections of tenants and {control} of the control plane"
            );
            if control > i64::from(CONTROL) {
                // They are left of busier times. The control plane opens another when it needs one.
                number(&self.admin, END_IDLE).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(super) fn bearer(tenant: &Tenant) -> (HeaderName, HeaderValue) {
    (AUTHORIZATION, format!("Bearer {}", tenant.key).parse().unwrap())
}
