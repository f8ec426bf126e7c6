//! From a program's `main` to its end: configuration, telemetry, listeners, the API, draining.
//!
//! What the API is, the program says; it is built after the ops listener answers, so that a slow
//! start can be watched.

use std::{collections::BTreeSet, error::Error, io::Write, net::SocketAddr, process::ExitCode, time::Duration};

use axum::Router;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    config::{self, ConfigError, Sections, Validate},
    health::Health,
    layers::{Api, EdgeConfig, edge},
    lifecycle::{Drain, Lifecycle, bind},
    ops,
    problem::BoxError,
    system,
    telemetry::Telemetry,
};

/// How long what blocks is waited for at the end: a file that is being closed, on a disk that may not answer.
const CLOSING: Duration = Duration::from_secs(2);

/// What a running service hands to its program.
#[derive(Debug, Clone)]
pub struct Service {
    /// The program's name.
    pub name: &'static str,
    /// Where the API listens; the true port, if the configuration asked for any.
    pub address: SocketAddr,
    /// Where health and metrics listen.
    pub ops_address: SocketAddr,
    /// Metrics.
    pub telemetry: Telemetry,
    /// The service's tasks and its end.
    pub lifecycle: Lifecycle,
    /// What must be well for the service to be ready.
    pub health: Health,
    switches: BTreeSet<&'static str>,
}

impl Service {
    /// Whether this start was given one of the program's own flags, [`Sections::SWITCHES`].
    pub fn is_told(&self, switch: &str) -> bool {
        self.switches.contains(switch)
    }
}

/// Runs a service: loads its configuration, builds its API with `build`, serves it inside of the
/// edge until SIGTERM or Ctrl-C, and drains. A failure is told on standard error.
///
/// ```no_run
/// # #[derive(Default, serde::Serialize, serde::Deserialize)]
/// # struct Config { listen: service::config::ListenConfig, telemetry: service::config::TelemetryConfig,
/// #   lifecycle: service::config::LifecycleConfig }
/// # impl service::config::Validate for Config {
/// #   fn validate(&self) -> Result<(), service::config::Invalid> { Ok(()) } }
/// # impl service::config::Sections for Config {
/// #   fn listen(&self) -> &service::config::ListenConfig { &self.listen }
/// #   fn telemetry(&self) -> &service::config::TelemetryConfig { &self.telemetry }
/// #   fn lifecycle(&self) -> &service::config::LifecycleConfig { &self.lifecycle } }
/// fn main() -> std::process::ExitCode {
///     service::run("greeter", async |config: Config, service| {
///         let hello = axum::routing::get(|| async { "hello" });
///         Ok(axum::Router::new().route("/", hello))
///     })
/// }
/// ```
pub fn run<C, B, A>(name: &'static str, build: B) -> ExitCode
where
    C: Default + Serialize + DeserializeOwned + Validate + Sections,
    B: AsyncFnOnce(C, Service) -> Result<A, BoxError>,
    A: Api,
{
    let (config, switches) = match config::load::<C>(name, C::SWITCHES, std::env::args_os()) {
        Ok(loaded) => loaded,
        Err(ConfigError::CommandLine(answer)) => answer.exit(),
        Err(error) => return failed(name, &error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(name, &error),
    };
    let ended = runtime.block_on(start(name, config, switches, build));
    runtime.shutdown_timeout(CLOSING);
    match ended {
        Ok(Drain::Complete | Drain::CutShort) => ExitCode::SUCCESS,
        Err(error) => failed(name, error.as_ref()),
    }
}

async fn start<C, B, A>(
    name: &'static str,
    config: C,
    switches: BTreeSet<&'static str>,
    build: B,
) -> Result<Drain, BoxError>
where
    C: Sections,
    B: AsyncFnOnce(C, Service) -> Result<A, BoxError>,
    A: Api,
{
    let telemetry = Telemetry::start(name, config.telemetry())?;
    system::raise_descriptors();
    let lifecycle = Lifecycle::new(config.lifecycle().drain());
    let timeout = config.lifecycle().request_timeout();
    let proxies = config.listen().proxies.clone();
    let health = Health::new();
    lifecycle.stop_on_signals()?;

    let listener = bind(config.listen().address, "listen.address").await?;
    let ops_listener = bind(config.listen().ops_address, "listen.ops_address").await?;
    let service = Service {
        name,
        address: listener.local_addr()?,
        ops_address: ops_listener.local_addr()?,
        telemetry: telemetry.clone(),
        lifecycle: lifecycle.clone(),
        health: health.clone(),
        switches,
    };
    let (address, ops_address) = (service.address, service.ops_address);
    let started = health.flag("started", "the service is starting");
    report_stopping(&health, &lifecycle);
    lifecycle.serve_ops(ops_listener, ops::router(health, telemetry.clone()));

    let stopping = lifecycle.stopping();
    let api = match stopping.run_until_cancelled(build(config, service)).await {
        Some(api) => edge(api?, EdgeConfig { telemetry, timeout, proxies }),
        // Told to stop before it had started: there is nothing to serve, only tasks to drain.
        None => return Ok(lifecycle.serve::<Router>(Vec::new()).await?),
    };
    started.set_ready();
    tracing::info!(%address, %ops_address, "{name} serves");
    let drain = lifecycle.serve(vec![(listener, api)]).await?;
    tracing::info!("{name} has stopped");
    Ok(drain)
}

/// A balancer that probes should send nothing more to a service that ends.
fn report_stopping(health: &Health, lifecycle: &Lifecycle) {
    let stopping = lifecycle.stopping();
    health.register("lifecycle", move || {
        let is_stopping = stopping.is_cancelled();
        async move { if is_stopping { Err("the service is stopping".to_owned()) } else { Ok(()) } }
    });
}

/// Tells on standard error why the program ends; the log may not have been started yet.
fn failed(name: &str, error: &(dyn Error + 'static)) -> ExitCode {
    // If even standard error is closed, the exit code has to say it alone.
    let _ = writeln!(std::io::stderr(), "{name}: {error}");
    ExitCode::FAILURE
}
