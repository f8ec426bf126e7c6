//! The sections that every service has: `[listen]`, `[telemetry]`, `[lifecycle]`.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use super::{Invalid, Switch, Validate};
use crate::layers::ProxiesConfig;

/// What every program needs to start: where it listens, how it logs, how long it drains.
pub trait Sections {
    /// Flags of the program's own.
    const SWITCHES: &'static [Switch] = &[];

    /// `[listen]`
    fn listen(&self) -> &ListenConfig;
    /// `[telemetry]`
    fn telemetry(&self) -> &TelemetryConfig;
    /// `[lifecycle]`
    fn lifecycle(&self) -> &LifecycleConfig;
}

/// `[listen]`: where the service is reached. Each program's own `Default` gives the addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// Address of the API, `127.0.0.1:8800`. Port 0 takes a free one.
    pub address: SocketAddr,
    /// Address of health and metrics; they ask for no token and belong on a private network.
    pub ops_address: SocketAddr,
    /// Proxies in front of the API.
    pub proxies: ProxiesConfig,
}

impl ListenConfig {
    /// Both listeners on the loopback interface.
    pub fn local(port: u16, ops_port: u16) -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            ops_address: SocketAddr::from(([127, 0, 0, 1], ops_port)),
            proxies: ProxiesConfig::default(),
        }
    }
}

impl Default for ListenConfig {
    /// Free ports on the loopback interface.
    fn default() -> Self {
        Self::local(0, 0)
    }
}

impl Validate for ListenConfig {
    fn validate(&self) -> Result<(), Invalid> {
        if self.address.port() != 0 && self.address == self.ops_address {
            return Err(Invalid::new("ops_address", "must differ from `address`"));
        }
        Ok(())
    }
}

/// `[telemetry]`: what is logged and counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// How a log line looks.
    pub format: LogFormat,
    /// Which lines are logged, as `info,freehold=debug` (tracing's EnvFilter directives).
    pub filter: String,
    /// How many tenants have metrics of their own; the rest are counted as `other`.
    pub busiest_tenants: usize,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, filter: "info,opentelemetry=warn".to_owned(), busiest_tenants: 100 }
    }
}

impl Validate for TelemetryConfig {
    fn validate(&self) -> Result<(), Invalid> {
        tracing_subscriber::EnvFilter::try_new(&self.filter)
            .map_err(|error| Invalid::new("filter", format!("is no list of log directives: {error}")))?;
        // Each tenant may own some dozens of time series; a scrape of millions helps nobody.
        if !(1..=10_000).contains(&self.busiest_tenants) {
            return Err(Invalid::new("busiest_tenants", "must be from 1 to 10000"));
        }
        Ok(())
    }
}

/// `[lifecycle]`: how the service ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LifecycleConfig {
    /// Seconds that requests and tasks have to finish once the service was told to stop.
    pub drain_seconds: u64,
    /// Seconds after which a request is answered with 503.
    pub request_seconds: u64,
}

impl LifecycleConfig {
    /// The time to finish in.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(self.drain_seconds)
    }

    /// The time that one request may take.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_seconds)
    }
}

impl Default for LifecycleConfig {
    /// Requests outlast the feed's long poll of 25 s; draining stays within the 30 s after which
    /// supervisors usually kill.
    fn default() -> Self {
        Self { drain_seconds: 20, request_seconds: 60 }
    }
}

impl Validate for LifecycleConfig {
    fn validate(&self) -> Result<(), Invalid> {
        if self.drain_seconds > 3_600 {
            return Err(Invalid::new("drain_seconds", "must be at most 3600"));
        }
        if !(1..=3_600).contains(&self.request_seconds) {
            return Err(Invalid::new("request_seconds", "must be from 1 to 3600"));
        }
        Ok(())
    }
}
