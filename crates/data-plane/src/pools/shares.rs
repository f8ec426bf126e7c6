//! This node's shares of the servers' connections: heard with the feed, kept to, and told of with the next request.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tenancy::share::{Kept, Share, ShareReport};
use tokio::sync::Notify;

use super::Pools;
use super::settings::Settings;

/// How long a node that ends waits until its connections are gone.
const EMPTY_WITHIN: Duration = Duration::from_secs(3);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The grants that were heard, by server, and the connections that may be opened there in a second.
#[derive(Default)]
pub(super) struct Shares {
    kept: Mutex<BTreeMap<String, (Kept, Option<NonZeroU32>)>>,
    /// There is something to tell that should not wait for the feed's next request.
    news: Arc<Notify>,
}

impl Shares {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, (Kept, Option<NonZeroU32>)>> {
        // Each change is whole before anything can panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }

    /// What is known of a server: none of its connections are this node's until it is told so.
    pub(super) fn of(&self, server: &str, settings: &Settings) -> (u32, Settings) {
        let (kept, connect_rate) = self.kept().get(server).copied().unwrap_or_default();
        (kept.connections, Settings { connect_rate: connect_rate.or(settings.connect_rate), ..settings.clone() })
    }
}

impl Pools {
    /// What this node says of its shares.
    pub(crate) fn share_reports(&self) -> Vec<ShareReport> {
        let servers = self.servers();
        let mut kept = self.shares.kept();
        // A server that no grant was heard of, too: it is how the control plane learns that it is needed.
        for server in servers.iter().filter(|server| !server.is_of_files) {
            kept.entry(server.name.to_string()).or_default();
        }
        let now = Instant::now();
        let reports = kept.iter().map(|(name, (kept, _))| {
            let server = servers.iter().find(|server| *server.name == **name);
            let (open, wanted) = server.map_or((0, 0), |server| server.demand(now));
            kept.report(name, open, wanted)
        });
        reports.collect()
    }

    /// Keeps to what the control plane granted.
    pub(crate) fn hear_shares(&self, shares: &[Share]) {
        let news: Vec<&Share> = {
            let mut kept = self.shares.kept();
            let hear = |share: &&Share| {
                let entry = kept.entry(share.server.clone()).or_default();
                entry.1 = NonZeroU32::new(share.connect_rate);
                entry.0.hear(share)
            };
            shares.iter().filter(hear).collect()
        };
        // After it: a server that is first used from now on finds its share there.
        for server in self.servers() {
            if let Some(share) = news.iter().find(|share| *server.name == *share.server) {
                server.set_share(share.connections, NonZeroU32::new(share.connect_rate), Instant::now());
            }
        }
    }

    /// Waits until there is something to tell of shares at once.
    pub(crate) async fn share_news(&self) {
        self.shares.news.notified().await;
    }

    /// Opens nothing any more, and waits until all that was open is gone, if that does not take too long.
    pub(crate) async fn empty(&self) {
        let servers = self.servers();
        for server in &servers {
            server.set_share(0, None, Instant::now());
        }
        let emptied = async {
            while servers.iter().any(|server| server.demand(Instant::now()).0 > 0) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(EMPTY_WITHIN, emptied).await.is_err() {
            tracing::warn!("some connections to tenants' databases are still in use; they end with the process");
        }
    }
}
