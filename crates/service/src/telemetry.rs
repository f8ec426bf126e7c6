//! Logs and metrics of a service: how they are started, and what is counted for each request.
//!
//! Lines go to standard output, pretty on a terminal and as JSON otherwise. Metrics go through the
//! OpenTelemetry API to a Prometheus registry. The number of time series is bounded here.

mod busiest;
mod log;
#[cfg(feature = "measure")]
mod measure;
mod request;
mod requests;
mod series;

use std::sync::Arc;

use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::{
    Resource,
    metrics::{Instrument, SdkMeterProvider, Stream},
};
use prometheus::{Registry, TextEncoder, proto::MetricFamily};

use crate::config::TelemetryConfig;
#[cfg(feature = "measure")]
pub use measure::Answered;
pub use request::RequestContext;
pub(crate) use requests::Requests;

/// Time series for each labelled tenant: an endpoint, method and status each is one.
const SERIES_PER_TENANT: usize = 64;

/// Why telemetry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The metrics could not be set up.
    #[error("cannot set up the metrics: {0}")]
    Metrics(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// The log could not be set up: a bad filter, or the process has a log already.
    #[error("cannot set up the log: {0}")]
    Log(#[source] crate::problem::BoxError),
}

/// The running telemetry; clones are the same.
#[derive(Debug, Clone)]
pub struct Telemetry {
    registry: Registry,
    provider: SdkMeterProvider,
    requests: Arc<Requests>,
}

impl Telemetry {
    /// Starts logs and metrics for the whole process, once. The meter provider becomes the global
    /// one, so that `opentelemetry::global::meter` counts into [`Telemetry::render`].
    pub fn start(name: &'static str, config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        let telemetry = Self::metrics_only(name, config)?;
        log::start(config)?;
        opentelemetry::global::set_meter_provider(telemetry.provider.clone());
        Ok(telemetry)
    }

    /// Metrics of their own, and nothing global: for tests and for services inside another process.
    pub fn metrics_only(name: &'static str, config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        let registry = Registry::new();
        let exporter =
            opentelemetry_prometheus::exporter().with_registry(registry.clone()).scope_info_enabled(false).build()?;
        let limit = ((config.busiest_tenants + 2) * SERIES_PER_TENANT).max(2_000);
        let bounded = move |_: &Instrument| Stream::builder().with_cardinality_limit(limit).build().ok();
        let provider = SdkMeterProvider::builder()
            .with_reader(exporter)
            .with_view(bounded)
            .with_resource(Resource::builder().with_service_name(name).build())
            .build();
        let requests = Requests::new(&provider.meter("service"), config.busiest_tenants, limit);
        Ok(Self { registry, provider, requests: Arc::new(requests) })
    }

    /// The provider of meters, for instruments of a service's own.
    pub fn meter(&self, name: &'static str) -> opentelemetry::metrics::Meter {
        self.provider.meter(name)
    }

    /// All metrics in Prometheus' text format.
    ///
    /// A tenant that is not among the busiest any more is left out; should it come back, its counts
    /// go on where they were.
    pub fn render(&self) -> String {
        let mut families = self.registry.gather();
        for family in &mut families {
            self.leave_out_unnamed(family);
        }
        families.retain(|family| !family.get_metric().is_empty());
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::error!(%error, "could not write the metrics down");
            String::new()
        })
    }

    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    fn leave_out_unnamed(&self, family: &mut MetricFamily) {
        let metrics = family.take_metric();
        let kept = metrics.into_iter().filter(|metric| {
            metric
                .get_label()
                .iter()
                .find(|label| label.name() == "tenant")
                .is_none_or(|label| self.requests.shows(label.value()))
        });
        family.set_metric(kept.collect());
    }
}
