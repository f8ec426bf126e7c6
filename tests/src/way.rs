//! A way to a server: an address of its own that leads there, until it is cut.

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// An address that leads to a server; it goes with its value.
pub struct Way {
    /// Where it begins: `127.0.0.1:PORT`.
    pub address: String,
    passing: JoinHandle<()>,
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
        let passing = tokio::spawn(async move {
            // Dropped with the task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let server = server.clone();
                connections.spawn(async move {
                    let Ok(mut to) = TcpStream::connect(server).await else { return };
                    let _ = from.set_nodelay(true);
                    let _ = to.set_nodelay(true);
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, passing }
    }

    /// Nothing passes any more, and the address takes no connection.
    pub async fn cut(mut self) {
        self.passing.abort();
        let _ = (&mut self.passing).await;
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.passing.abort();
    }
}
