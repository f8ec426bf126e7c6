//! A way to a server: an address of its own that leads there, until it is cut, swallows what is sent, or leads elsewhere.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// An address that leads to a server; it goes with its value.
pub struct Way {
    /// Where it begins: `127.0.0.1:PORT`.
    pub address: String,
    passing: JoinHandle<()>,
    leads_to: watch::Sender<String>,
    is_open: watch::Sender<bool>,
    forgets: watch::Sender<()>,
}

impl Way {
    /// A way to this `host:port`.
    pub async fn to(server: &str) -> Self {
        Self::on("127.0.0.1:0", server).await
    }

    /// As [`Way::to`], that begins at this address.
    pub async fn on(address: &str, server: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (address, leads_to) = (listener.local_addr().unwrap().to_string(), watch::Sender::new(server.to_owned()));
        let (is_open, forgets) = (watch::Sender::new(true), watch::Sender::new(()));
        let (target, opened, forgotten) = (leads_to.subscribe(), is_open.subscribe(), forgets.subscribe());
        let passing = tokio::spawn(async move {
            // Dropped with the task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((from, _)) = listener.accept().await {
                connections.spawn(pass(from, target.clone(), opened.clone(), forgotten.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, passing, leads_to, is_open, forgets }
    }

    /// Nothing passes any more, and the address takes no connection.
    pub async fn cut(mut self) {
        self.passing.abort();
        let _ = (&mut self.passing).await;
    }

    /// From now on it leads to this `host:port`, as an address that moves. The connections that pass now are closed at both ends.
    pub fn lead_to(&self, server: &str) {
        self.leads_to.send_replace(server.to_owned());
    }

    /// From now on nothing passes, and neither end hears of it: not even that the other has closed.
    pub fn swallow(&self) {
        self.is_open.send_replace(false);
    }

    /// What is connected from now on passes; what was swallowed stays so.
    pub fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// What was swallowed is closed at both ends, as by a server that notices.
    pub fn forget(&self) {
        self.forgets.send_replace(());
    }
}

async fn pass(
    mut from: TcpStream,
    mut target: watch::Receiver<String>,
    mut opened: watch::Receiver<bool>,
    mut forgotten: watch::Receiver<()>,
) {
    forgotten.mark_unchanged();
    let server = target.borrow_and_update().clone();
    let mut to = None;
    if *opened.borrow() {
        let Ok(connected) = TcpStream::connect(server).await else { return };
        let _ = from.set_nodelay(true);
        let _ = connected.set_nodelay(true);
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut from, to.insert(connected)) => return,
            _ = target.changed() => return,
            _ = opened.wait_for(|is_open| !is_open) => {}
        }
    }
    let _ = forgotten.changed().await;
}

impl Drop for Way {
    fn drop(&mut self) {
        self.passing.abort();
    }
}
