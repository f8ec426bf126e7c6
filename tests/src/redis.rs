//! A Redis of one test's own: killed, started again without its memory, stopped for a while. It goes with its value.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server, which writes nothing to disk.
pub struct Redis {
    port: u16,
    child: Child,
}

impl Redis {
    /// Starts one on a free port.
    pub fn start() -> Self {
        // Somebody else may take the port meanwhile; then it is another one.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = run(port) {
                return Self { port, child };
            }
        }
        panic!("no port was free for a Redis");
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// SIGKILL: whatever it remembered is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again where it was, remembering nothing.
    pub fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(child) = run(self.port) {
                self.child = child;
                return;
            }
            assert!(Instant::now() < deadline, "Redis does not start again on port {}", self.port);
        }
    }

    /// SIGSTOP: it takes connections, and answers none.
    pub fn stop(&self) {
        self.signal("-STOP");
    }

    /// SIGCONT: it goes on with all that it was asked meanwhile.
    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success(), "kill {signal}");
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// None: it ended, most likely because the port is taken.
fn run(port: u16) -> Option<Child> {
    let start = |program: &str| {
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.current_dir(std::env::temp_dir()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
    };
    let mut child = ["redis-server", "valkey-server"]
        .into_iter()
        .find_map(start)
        .expect("no redis-server or valkey-server; run this by `cargo xtask test`, which installs one");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        if answers(port) {
            // It may be somebody else's who answers there.
            std::thread::sleep(Duration::from_millis(20));
            return child.try_wait().unwrap().is_none().then_some(child);
        }
        assert!(Instant::now() < deadline, "a Redis does not answer on port {port}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn answers(port: u16) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"+PONG")
    };
    ping().unwrap_or(false)
}
