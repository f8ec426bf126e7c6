//! The process's log: its form, its filter, the trace ids in its lines, and panics.

use std::{io::IsTerminal, panic};

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::{propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

use super::TelemetryError;
use crate::config::{LogFormat, TelemetryConfig};

pub(super) fn start(name: &'static str, config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|error| TelemetryError::Log(error.into()))?;
    let is_pretty = match config.format {
        LogFormat::Auto => std::io::stdout().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let lines: Box<dyn Layer<_> + Send + Sync> = if is_pretty {
        tracing_subscriber::fmt::layer().with_ansi(std::io::stdout().is_terminal()).boxed()
    } else {
        tracing_subscriber::fmt::layer().json().flatten_event(true).with_span_list(false).boxed()
    };
    // Without an exporter the spans go nowhere, but each request has a trace id to log and to hand on.
    let tracer = SdkTracerProvider::builder().build().tracer(name);
    Registry::default()
        .with(lines)
        .with(tracing_opentelemetry::layer().with_tracer(tracer))
        .with(filter)
        .try_init()
        .map_err(|error| TelemetryError::Log(error.into()))?;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    log_panics();
    Ok(())
}

/// A panic is a line of the log like any other, with the spans that it happened in.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("a panic without a text");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panicked: {message}");
    }));
}
