//! What is counted of connections, by the names of OpenTelemetry's conventions where they have one. Labels name servers, and
//! no tenant.

use std::sync::{Arc, RwLock, Weak};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};

use super::dial::DialError;
use super::refusal::Refusal;
use super::server::ServerPool;

/// Why a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// Another tenant needed its permit.
    Replaced,
    /// It was idle for too long.
    Idle,
    /// It lived its time.
    Expired,
    /// The node's share became smaller.
    Shrunk,
    /// The server's anchor session was lost.
    Adrift,
    /// Its tenant's URL is another, or none.
    Retired,
    /// It answered that it is of no use any more, or not at all.
    Spent,
    /// It was left in the middle of a statement.
    Broken,
}

impl Closed {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Idle => "idle",
            Self::Expired => "expired",
            Self::Shrunk => "shrunk",
            Self::Adrift => "adrift",
            Self::Retired => "retired",
            Self::Spent => "spent",
            Self::Broken => "broken",
        }
    }
}

/// What all servers' pools of a node count into.
#[derive(Clone)]
pub(super) struct Instruments {
    dials: Counter<u64>,
    opens: Counter<u64>,
    closes: Counter<u64>,
    timeouts: Counter<u64>,
    wait_time: Histogram<f64>,
    create_time: Histogram<f64>,
}

impl Instruments {
    pub(super) fn new(meter: &Meter) -> Self {
        // Seconds, up to the longest wait that is usual.
        let seconds = || vec![0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];
        Self {
            dials: meter
                .u64_counter("data_plane_pool_dials")
                .with_description("First connections of tenants' database URLs, by outcome.")
                .build(),
            opens: meter
                .u64_counter("data_plane_connection_opens")
                .with_description("Connections opened to tenants' databases, by outcome.")
                .build(),
            closes: meter
                .u64_counter("data_plane_connection_closes")
                .with_description("Connections closed, by reason.")
                .build(),
            timeouts: meter
                .u64_counter("data_plane_connection_refusals")
                .with_description("Statements that got no connection, by reason.")
                .build(),
            wait_time: meter
                .f64_histogram("db.client.connection.wait_time")
                .with_unit("s")
                .with_boundaries(seconds())
                .with_description("Time that statements waited for a connection that was not idle.")
                .build(),
            create_time: meter
                .f64_histogram("db.client.connection.create_time")
                .with_unit("s")
                .with_boundaries(seconds())
                .with_description("Time that it took to open a connection.")
                .build(),
        }
    }

    pub(super) fn of_server(&self, name: &str) -> PoolMetrics {
        PoolMetrics { all: self.clone(), server: name.to_owned() }
    }
}

/// What one server's pool counts.
pub(super) struct PoolMetrics {
    all: Instruments,
    server: String,
}

impl PoolMetrics {
    fn label(&self) -> KeyValue {
        KeyValue::new("db.client.connection.pool.name", self.server.clone())
    }

    pub(super) fn waited(&self, time: Duration) {
        self.all.wait_time.record(time.as_secs_f64(), &[self.label()]);
    }

    pub(super) fn refused(&self, refusal: &Refusal) {
        self.all.timeouts.add(1, &[self.label(), KeyValue::new("reason", refusal.reason())]);
    }

    /// A URL of which no connection was open before was dialled.
    pub(super) fn dialled(&self, is_open: bool) {
        self.all.dials.add(1, &[KeyValue::new("outcome", if is_open { "open" } else { "failed" })]);
    }

    pub(super) fn opened(&self, error: Option<&DialError>, time: Duration) {
        let outcome = error.map_or("open", DialError::outcome);
        self.all.opens.add(1, &[self.label(), KeyValue::new("outcome", outcome)]);
        if error.is_none() {
            self.all.create_time.record(time.as_secs_f64(), &[self.label()]);
        }
    }

    pub(super) fn closed(&self, why: Closed) {
        self.all.closes.add(1, &[self.label(), KeyValue::new("reason", why.as_str())]);
    }
}

/// Gauges of what is open on each server.
pub(super) fn observe(meter: &Meter, servers: &Arc<RwLock<Vec<Arc<ServerPool>>>>) {
    type Read = fn(&ServerPool) -> Vec<(u32, Option<&'static str>)>;
    let gauges: [(&'static str, &'static str, Read); 4] = [
        ("db.client.connection.count", "Connections to tenants' databases, by server and state.", |server| {
            let counts = server.counts();
            let used = counts.held.saturating_sub(counts.idle);
            let states =
                [("idle", counts.idle), ("used", used), ("closing", counts.closing), ("anchor", counts.anchors)];
            states.into_iter().map(|(state, count)| (count, Some(state))).collect()
        }),
        ("db.client.connection.max", "Connections that this node may have, by server.", |server| {
            vec![(server.counts().share, None)]
        }),
        ("data_plane_connect_rate", "Connections that this node may open in a second, by server.", |server| {
            vec![(server.counts().connect_rate, None)]
        }),
        ("db.client.connection.pending_requests", "Statements that wait for a connection, by server.", |server| {
            vec![(server.counts().waiting, None)]
        }),
    ];
    for (name, description, read) in gauges {
        let servers: Weak<_> = Arc::downgrade(servers);
        meter
            .u64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |observer| {
                let Some(servers) = servers.upgrade() else { return };
                let servers = servers.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                for server in servers {
                    let label = KeyValue::new("db.client.connection.pool.name", server.name.to_string());
                    for (value, state) in read(&server) {
                        let state = state.map(|state| KeyValue::new("db.client.connection.state", state));
                        let labels: Vec<_> = [Some(label.clone()), state].into_iter().flatten().collect();
                        observer.observe(value.into(), &labels);
                    }
                }
            })
            .build();
    }
}
