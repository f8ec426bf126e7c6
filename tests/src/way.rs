//! A way to a server: an address of its own that leads there, until it is cut or swallows what is sent.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// An address that leads to a server; it goes with its value.
pub struct Way {
    /// Where it begins: `127.0.0.1:PORT`.
    pub address: String,
    passing: JoinHandle<()>,
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
        let (address, server) = (listener.local_addr().unwrap().to_string(), server.to_owned());
        let (is_open, forgets) = (watch::Sender::new(true), watch::Sender::new(()));
        let (opened, forgotten) = (is_open.subscribe(), forgets.subscribe());
        let passing = tokio::spawn(async move {
            // Dropped with the task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((from, _)) = listener.accept().await {
                connections.spawn(pass(from, server.clone(), opened.clone(), forgotten.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, passing, is_open, forgets }
    }

    /// Nothing passes any more, and the address takes no connection.
    pub async fn cut(mut self) {
        self.passing.abort();
        let _ = (&mut self.passing).await;
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
    server: String,
    mut opened: watch::Receiver<bool>,
    mut forgotten: watch::Receiver<()>,
) {
    forgotten.mark_unchanged();
    let mut to = None;
    if *opened.borrow() {
        let Ok(connected) = TcpStream::connect(server).await else { return };
        let _ = from.set_nodelay(true);
        let _ = connected.set_nodelay(true);
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut from, to.insert(connected)) => return,
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
