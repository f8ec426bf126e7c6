//! This node's shares of the servers' connections: heard with the feed, kept to, and told of with the next request.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tenancy::seal::KeyRing;
use tenancy::share::{Kept, Share, ShareReport};
use tokio::sync::Notify;

use super::Pools;
use super::anchor::Anchor;
use super::server::Granted;

/// How long a node that ends waits until its connections are gone.
const EMPTY_WITHIN: Duration = Duration::from_secs(3);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The grants that were heard, by server.
#[derive(Default)]
pub(super) struct Shares {
    kept: Mutex<BTreeMap<String, (Kept, Granted)>>,
    /// There is something to tell that should not wait for the feed's next request.
    news: Arc<Notify>,
}

impl Shares {
    fn kept(&self) -> MutexGuard<'_, BTreeMap<String, (Kept, Granted)>> {
        // Each change is whole before anything can panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn news(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }

    /// What was granted of a server.
    pub(super) fn of(&self, server: &str) -> Granted {
        self.kept().get(server).map(|(_, granted)| granted.clone()).unwrap_or_default()
    }
}

/// Takes in a grant, unless it is older than what is known. Answers whether it was news.
fn hear(ring: &Arc<KeyRing>, (kept, granted): &mut (Kept, Granted), share: &Share) -> bool {
    granted.connect_rate = NonZeroU32::new(share.connect_rate);
    let mut share = share.clone();
    if let Some(told) = share.anchor.take_if(|_| share.grant > kept.grant) {
        match Anchor::of(ring, &told) {
            Ok(anchor) => {
                granted.anchor = Some(Arc::new(anchor));
                share.anchor = Some(told);
            }
            // Then it goes on as it did: the control plane is not told that this node keeps to it.
            Err(error) => tracing::error!(server = share.server, "could not use the anchor that was granted: {error}"),
        }
    }
    let is_news = kept.hear(&share);
    granted.connections = kept.connections;
    is_news
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
        let news: BTreeMap<&str, Granted> = {
            let mut kept = self.shares.kept();
            let heard = shares.iter().filter_map(|share| {
                let entry = kept.entry(share.server.clone()).or_default();
                hear(&self.ring, entry, share).then(|| (share.server.as_str(), entry.1.clone()))
            });
            heard.collect()
        };
        // After it: a server that is first used from now on finds its share there.
        for server in self.servers() {
            if let Some(granted) = news.get(&*server.name) {
                server.set_share(granted, Instant::now());
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
            server.give_up();
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
