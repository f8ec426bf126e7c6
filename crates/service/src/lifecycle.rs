//! How a service ends: told to stop, it stops accepting, lets what runs finish within a deadline,
//! and then stops. Nothing here decides what the tasks do with their last seconds.

use std::{
    io,
    net::SocketAddr,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{Router, ServiceExt, extract::Request, serve::ListenerExt};
use futures_util::FutureExt;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use crate::layers::Api;

/// Why a service could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// The listener's address cannot be had.
    #[error("cannot listen on {address}: {source}. {}", advice(source, key))]
    Bind {
        /// The address that was asked for.
        address: SocketAddr,
        /// The configuration key that sets it.
        key: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// The signals cannot be listened for.
    #[error("cannot listen for SIGTERM and Ctrl-C: {0}")]
    Signals(#[source] io::Error),
    /// A listener ended by itself.
    #[error("a listener ended before the service was told to stop")]
    ListenerEnded,
    /// A task of the service panicked; the service stopped rather than run without it.
    #[error("the task `{0}` panicked")]
    TaskPanicked(&'static str),
}

fn advice(error: &io::Error, key: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("Stop the process that listens there, or choose another address with `{key}`.")
        }
        io::ErrorKind::PermissionDenied => {
            format!("Choose a port above 1023 with `{key}`, or run with the right to bind it.")
        }
        _ => format!("Choose an address of this machine with `{key}`."),
    }
}

/// How draining went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Everything finished.
    Complete,
    /// The deadline came first; what still ran was cut off.
    CutShort,
}

/// The life of one service; clones are the same.
#[derive(Debug, Clone)]
pub struct Lifecycle(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    drain: Duration,
    stopping: CancellationToken,
    drained: CancellationToken,
    stopped: CancellationToken,
    tasks: TaskTracker,
    panicked: OnceLock<&'static str>,
}

impl Lifecycle {
    /// A life that leaves `drain` for finishing what runs.
    pub fn new(drain: Duration) -> Self {
        Self(Arc::new(Inner {
            drain,
            stopping: CancellationToken::new(),
            drained: CancellationToken::new(),
            stopped: CancellationToken::new(),
            tasks: TaskTracker::new(),
            panicked: OnceLock::new(),
        }))
    }

    /// Tells the service to stop; returns at once.
    pub fn stop(&self) {
        self.0.stopping.cancel();
    }

    /// Cancelled once the service was told to stop. Long polls and loops end on it.
    pub fn stopping(&self) -> CancellationToken {
        self.0.stopping.clone()
    }

    /// Cancelled once the service was told to stop and no request is at work any more. What requests
    /// need ends on it.
    pub fn drained(&self) -> CancellationToken {
        self.0.drained.clone()
    }

    /// Runs a task of the service. It should end soon after [`Lifecycle::stopping`], and is dropped
    /// at the drain's deadline. A task that panics takes the service down, for a supervisor to
    /// start it whole.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let this = self.clone();
        let guarded = async move {
            let stopped = this.0.stopped.clone();
            let task = AssertUnwindSafe(task).catch_unwind();
            if let Some(Err(_)) = stopped.run_until_cancelled_owned(task).await {
                tracing::error!(task = name, "a task panicked; the service stops");
                this.0.panicked.get_or_init(|| name);
                this.stop();
            }
        };
        self.0.tasks.spawn(guarded.instrument(tracing::info_span!("task", name)));
    }

    /// From now on SIGTERM and Ctrl-C stop the service; a second one cuts the draining short.
    pub fn stop_on_signals(&self) -> Result<(), LifecycleError> {
        let mut signals = Signals::listen().map_err(LifecycleError::Signals)?;
        let this = self.clone();
        tokio::spawn(async move {
            signals.next().await;
            tracing::info!("told to stop; finishing what runs");
            this.stop();
            signals.next().await;
            tracing::warn!("told to stop again; cutting off what runs");
            this.0.stopped.cancel();
        });
        Ok(())
    }

    /// Serves a router beside the API until all has drained: for health and metrics, which should
    /// answer while the service ends.
    pub fn serve_ops(&self, listener: TcpListener, router: Router) {
        let stopped = self.0.stopped.clone();
        tokio::spawn(serve(listener, router, stopped));
    }

    /// Serves until the service is told to stop, then drains: new connections are refused, and
    /// requests and tasks may finish until the deadline.
    pub async fn serve<S: Api>(&self, listeners: Vec<(TcpListener, S)>) -> Result<Drain, LifecycleError> {
        let mut servers = JoinSet::new();
        for (listener, api) in listeners {
            servers.spawn(serve(listener, api, self.stopping()));
        }
        let ended_early = tokio::select! {
            biased;
            () = self.0.stopping.cancelled() => false,
            Some(_) = servers.join_next() => true,
        };
        self.stop();
        let drain = self.drain(&mut servers).await;
        match self.0.panicked.get() {
            Some(name) => Err(LifecycleError::TaskPanicked(name)),
            None if ended_early => Err(LifecycleError::ListenerEnded),
            None => Ok(drain),
        }
    }

    async fn drain(&self, servers: &mut JoinSet<()>) -> Drain {
        // Only a closed tracker says that it is empty; one that is closed still takes tasks.
        self.0.tasks.close();
        let finish = async {
            while servers.join_next().await.is_some() {}
            self.0.drained.cancel();
            self.0.tasks.wait().await;
        };
        let drain = tokio::select! {
            biased;
            () = finish => Drain::Complete,
            () = tokio::time::sleep(self.0.drain) => Drain::CutShort,
            () = self.0.stopped.cancelled() => Drain::CutShort,
        };
        if drain == Drain::CutShort {
            let tasks = self.0.tasks.len();
            tracing::warn!(tasks, listeners = servers.len(), "cut off what had not finished");
        }
        self.0.stopped.cancel();
        drain
    }
}

/// Binds a listener; `key` is the configuration key to name if that fails.
pub async fn bind(address: SocketAddr, key: &'static str) -> Result<TcpListener, LifecycleError> {
    TcpListener::bind(address).await.map_err(|source| LifecycleError::Bind { address, key, source })
}

async fn serve(listener: TcpListener, api: impl Api, until: CancellationToken) {
    // Small answers should not wait for the peer's acknowledgement (Nagle's algorithm).
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
    });
    // Each request knows the other end of its connection.
    let served = axum::serve(listener, ServiceExt::<Request>::into_make_service_with_connect_info::<SocketAddr>(api))
        .with_graceful_shutdown(until.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "a listener failed");
    }
}

/// SIGTERM and Ctrl-C.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    #[allow(clippy::unnecessary_wraps, reason = "as on Unix")]
    fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests;
