//! What is counted for each request: `api_requests_total` and `api_request_duration_seconds`.

use std::time::Duration;

use http::{Method, StatusCode};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram, Meter},
};

use super::busiest::Busiest;
use super::request::RequestContext;
use super::series::{Series, SeriesTable};

/// Upper bounds in seconds, from a cached answer to a request that is given up.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The `tenant` of a request that named none.
const NONE: &str = "none";
/// The `tenant` of requests for all that are not among the busiest.
const OTHER: &str = "other";

/// The instruments, and who is labelled.
#[derive(Debug)]
pub(crate) struct Requests {
    total: Counter<u64>,
    seconds: Histogram<f64>,
    busiest: Busiest,
    series: SeriesTable,
}

impl Requests {
    /// `limit` is the meter's cardinality limit. It sizes the table of bound instruments.
    pub(super) fn new(meter: &Meter, busiest_tenants: usize, limit: usize) -> Self {
        Self {
            // The exporter adds `_total` to a counter, and `_seconds` for the unit `s`.
            total: meter.u64_counter("api_requests").with_description("Requests answered.").build(),
            seconds: meter
                .f64_histogram("api_request_duration")
                .with_unit("s")
                .with_description("Time from a request's head to its answer's head.")
                .with_boundaries(BUCKETS.to_vec())
                .build(),
            busiest: Busiest::new(busiest_tenants),
            series: SeriesTable::new(limit),
        }
    }

    /// Counts one answered request.
    pub(crate) fn count(&self, context: &RequestContext, status: StatusCode, took: Duration) {
        let tenant = self.label_of(context.tenant());
        let (mount, pattern) = context.endpoint().unwrap_or(("", "unmatched"));
        let (method, status) = (name_of(context.method()), status.as_u16());
        let attributes = || {
            [
                KeyValue::new("tenant", tenant.to_owned()),
                KeyValue::new("endpoint", format!("{mount}{pattern}")),
                KeyValue::new("method", method),
                KeyValue::new("status", i64::from(status)),
            ]
        };
        let make = || {
            let attributes = attributes();
            Series { total: self.total.bind(&attributes), seconds: self.seconds.bind(&attributes[..2]) }
        };
        let took = took.as_secs_f64();
        if let Some(series) = self.series.find((tenant, mount, pattern, method, status), make) {
            series.seconds.record(took);
            series.total.add(1);
        } else {
            let attributes = attributes();
            self.seconds.record(took, &attributes[..2]);
            self.total.add(1, &attributes);
        }
    }

    /// Whether series with that `tenant` are shown.
    pub(super) fn shows(&self, label: &str) -> bool {
        label == NONE || label == OTHER || self.busiest.is_named(label)
    }

    /// One label for each request: the labels' counts add up to all requests.
    fn label_of<'a>(&self, tenant: Option<&'a str>) -> &'a str {
        match tenant {
            None => NONE,
            Some(tenant) if self.busiest.observe(tenant) => tenant,
            Some(_) => OTHER,
        }
    }
}

/// Anyone can send a method of any name; only the known ones become labels.
fn name_of(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::TelemetryConfig, telemetry::Telemetry};

    fn counted(telemetry: &Telemetry, tenant: &str) {
        let context = RequestContext::of(&axum::extract::Request::new(axum::body::Body::empty()), None);
        context.set_tenant(tenant);
        telemetry.requests().count(&context, StatusCode::OK, Duration::from_millis(3));
    }

    #[test]
    fn metrics_have_the_names_and_labels_that_dashboards_know() {
        let telemetry = Telemetry::metrics_only("test", &TelemetryConfig::default()).unwrap();
        counted(&telemetry, "acme");
        let text = telemetry.render();
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.contains("_bucket") || line.contains(r#"le="0.005""#))
            .filter(|line| !line.starts_with('#') && !line.starts_with("target_info"))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
        api_request_duration_seconds_bucket{endpoint="unmatched",tenant="acme",le="0.005"} 1
        api_request_duration_seconds_sum{endpoint="unmatched",tenant="acme"} 0.003
        api_request_duration_seconds_count{endpoint="unmatched",tenant="acme"} 1
        api_requests_total{endpoint="unmatched",method="GET",status="200",tenant="acme"} 1
        "#);
    }

    #[test]
    fn tenants_past_the_busiest_are_counted_as_other() {
        let config = TelemetryConfig { busiest_tenants: 2, ..TelemetryConfig::default() };
        let telemetry = Telemetry::metrics_only("test", &config).unwrap();
        for number in 0..100 {
            counted(&telemetry, &format!("t{number}"));
        }
        for _ in 0..50 {
            counted(&telemetry, "late");
        }
        let text = telemetry.render();
        let mut tenants: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("api_requests_total"))
            .filter_map(|line| line.split(r#"tenant=""#).nth(1)?.split('"').next())
            .collect();
        tenants.sort_unstable();
        assert_eq!(tenants.len(), 3, "{tenants:?}");
        assert!(tenants.contains(&"late") && tenants.contains(&"other"), "{tenants:?}");
    }

    #[test]
    fn each_request_is_counted_once_whatever_its_tenants_place() {
        let config = TelemetryConfig { busiest_tenants: 2, ..TelemetryConfig::default() };
        let telemetry = Telemetry::metrics_only("test", &config).unwrap();
        // Each is busier than the one before, and takes another's place; passers-by come between.
        for (number, times) in [20, 60, 200, 700].into_iter().enumerate() {
            for time in 0..times {
                counted(&telemetry, &format!("busy{number}"));
                counted(&telemetry, &format!("once{number}-{time}"));
            }
        }
        // Those that lost their place too, unlike in what is shown.
        let families = telemetry.registry.gather();
        let counts: Vec<f64> = families
            .iter()
            .filter(|family| family.name() == "api_requests_total")
            .flat_map(|family| family.get_metric().iter().map(|metric| metric.get_counter().get_value()))
            .collect();
        assert!(counts.len() > 4, "no place was ever lost: {counts:?}");
        assert!((counts.iter().sum::<f64>() - 1_960.0).abs() < 0.5, "{counts:?}");
        let shown = telemetry.render().lines().filter(|line| line.starts_with("api_requests_total")).count();
        assert!(shown <= 3, "{shown}");
    }
}
