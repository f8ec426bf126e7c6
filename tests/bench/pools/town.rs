//! Many tenants on one Postgres of the bench's own, and the planes that serve them.

use std::collections::HashMap;
use std::time::Duration;

use end_to_end::bed::{Bed, Store, Tenant, Tuning, try_send};
use end_to_end::postgres::{Postgres, number};
use futures_util::{StreamExt as _, stream};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use sea_orm::DatabaseConnection;
use serde_json::json;

use super::crowd::Asked;

/// What a plan of the bench gives each tenant on each node.
const CONNECTIONS: u32 = 4;
const AT_ONCE: usize = 8;
/// All clients have one address, and a data plane that has just started knows no key yet.
pub(super) const DATA: &str = "[strangers]\nper_second = 100000\nburst = 1000000\n";
/// What the control plane has open there at most, with what the bench itself looks through.
const SPARE: i64 = 30;

/// All of it.
pub(super) struct Town {
    pub(super) bed: Bed,
    pub(super) server: Postgres,
    pub(super) tenants: Vec<Tenant>,
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
    pub(super) async fn build(tenants: usize, nodes: usize, budget: u32) -> Self {
        // Room for the data planes, for one plain pool for each tenant and for one large pool.
        let server = Postgres::start_with(&["max_connections=900", "shared_buffers=256MB"]);
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

    /// Until all that may be opened is dealt to the nodes that run.
    pub(super) async fn until_dealt(&self, budget: u32) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        loop {
            // A node gets a share when it has requests. One request may fail: a restarted node has closed this client's connection.
            for node in 0..self.bed.data.len() {
                let _ = try_send(self.bed.request(node, "GET", "/api/pets").bearer_auth(&self.tenants[node].key)).await;
            }
            let shown = self.bed.done("GET", "/v1/servers/town", None).await;
            let shares = shown["connections"]["shares"].as_array().unwrap();
            let dealt: u64 = shares.iter().filter_map(|share| share["share"].as_u64()).sum();
            if dealt == u64::from(budget) && shares.iter().all(|share| share["is_leaving"] != true) {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "the budget is not dealt: {shown}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a crowd asks the data planes.
    pub(super) fn asked(&self) -> Asked {
        let nodes = self.bed.data.iter().map(|node| node.url.clone()).collect();
        Asked { nodes, headers: self.tenants.iter().map(bearer).collect() }
    }

    /// Takes up all connections but so many, until what is returned is dropped.
    pub(super) async fn leave_only(&self, connections: i64) -> Vec<DatabaseConnection> {
        let all = number(&self.admin, "SELECT current_setting('max_connections')::int8").await;
        let kept = number(&self.admin, "SELECT current_setting('superuser_reserved_connections')::int8").await;
        let mut fillers = Vec::new();
        // What the control plane may want in the meantime is left to it.
        for _ in 0..(all - kept - connections - SPARE) {
            fillers.push(self.server.look("postgres").await);
        }
        fillers
    }
}

pub(super) fn bearer(tenant: &Tenant) -> (HeaderName, HeaderValue) {
    (AUTHORIZATION, format!("Bearer {}", tenant.key).parse().unwrap())
}
