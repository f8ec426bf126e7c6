//! The process's log: its form, its filter, what it says of the request at hand, and panics.

use std::{fmt, io::IsTerminal, panic};

use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{
        FmtContext,
        format::{Format, FormatEvent, FormatFields, Writer},
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use super::{RequestContext, TelemetryError};
use crate::config::{LogFormat, TelemetryConfig};

pub(super) fn start(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter).map_err(|error| TelemetryError::Log(error.into()))?;
    let is_pretty = match config.format {
        LogFormat::Auto => std::io::stdout().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let lines: Box<dyn Layer<_> + Send + Sync> = if is_pretty {
        let is_terminal = std::io::stdout().is_terminal();
        // The layer writes the spans' fields, the format the rest.
        let format = Readable(Format::default().with_ansi(is_terminal));
        tracing_subscriber::fmt::layer().with_ansi(is_terminal).event_format(format).boxed()
    } else {
        let mut layer = json_subscriber::fmt::layer().flatten_event(true).with_span_list(false);
        layer.inner_layer_mut().add_multiple_dynamic_fields(|_, _| {
            let fields = RequestContext::current(|request| request.fields().collect::<Vec<_>>());
            fields.into_iter().flatten().map(|(name, value)| (name.to_owned(), value.into()))
        });
        layer.boxed()
    };
    Registry::default().with(lines).with(filter).try_init().map_err(|error| TelemetryError::Log(error.into()))?;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    log_panics();
    Ok(())
}

/// A line for people, with the request at hand behind it.
struct Readable(Format);

impl<S, N> FormatEvent<S, N> for Readable
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        write!(writer, "{}", line.trim_end())?;
        let fields = RequestContext::current(|request| request.fields().collect::<Vec<_>>());
        for (name, value) in fields.into_iter().flatten() {
            // Callers choose paths and ids: no line of theirs looks like one of ours.
            write!(writer, " {name}={}", value.escape_debug())?;
        }
        writeln!(writer)
    }
}

/// A panic is a line of the log like any other, with the request that it happened in.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("a panic without a text");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(location, "panicked: {message}");
    }));
}
