//! A Postgres of one test's own: gone and back, with the data that it had. It goes with its value.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sea_orm::{ConnectOptions, ConnectionTrait as _, DatabaseConnection, Statement};
use tempfile::TempDir;

const PASSWORD: &str = "password-of-the-tests-own-postgres";

/// A running server.
pub struct Postgres {
    port: u16,
    settings: &'static [&'static str],
    child: Child,
    folder: TempDir,
}

impl Postgres {
    /// Makes a cluster, and starts it on a free port.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Postgres::start`], with settings such as `max_connections=40`.
    pub fn start_with(settings: &'static [&'static str]) -> Self {
        let folder = new_folder();
        let file = folder.path().join("password");
        fs::write(&file, PASSWORD).unwrap();
        give(&file);
        let mut initdb = command("initdb", folder.path());
        initdb.arg("-D").arg(folder.path().join("data")).args(["-U", "admin", "--auth=scram-sha-256", "--pwfile"]);
        let made = initdb.arg(&file).args(["--locale=C", "--encoding=UTF8", "--no-sync"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self::on_a_free_port(folder, settings)
    }

    /// A new hot standby of this server. It takes no writes until [`Postgres::promote`].
    pub fn standby(&self) -> Self {
        let folder = new_folder();
        let mut copy = command("pg_basebackup", folder.path());
        copy.arg("-D").arg(folder.path().join("data")).args(["--dbname", &self.url(), "--no-password"]);
        let made = copy.args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf"]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self::on_a_free_port(folder, self.settings)
    }

    fn on_a_free_port(folder: TempDir, settings: &'static [&'static str]) -> Self {
        // Somebody else may take the port meanwhile; then it is another one.
        for _ in 0..20 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = run(port, folder.path(), settings) {
                return Self { port, settings, child, folder };
            }
        }
        panic!("no port was free for a Postgres");
    }

    /// Its admin's URL.
    pub fn url(&self) -> String {
        format!("postgres://admin:{PASSWORD}@127.0.0.1:{}/postgres", self.port)
    }

    /// Where it listens: `host:port`.
    pub fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// One of its databases for the harness, which may see and do everything there.
    pub async fn look(&self, database: &str) -> DatabaseConnection {
        let url = self.url();
        let mut options = ConnectOptions::new(format!("{}/{database}", url.rsplit_once('/').unwrap().0));
        options.max_connections(1).sqlx_logging(false);
        service::pool::open(options).await.unwrap()
    }

    /// SIGQUIT: an immediate shutdown, as of a machine that loses its power. Waits until it is gone.
    pub fn stop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            let _ = Command::new("kill").arg("-QUIT").arg(self.child.id().to_string()).status();
            let _ = self.child.wait();
        }
    }

    /// SIGTERM: a smart shutdown. Open sessions go on. Once this returns, the server refuses new ones with 57P03.
    pub fn shut_down_smartly(&self) {
        self.signal_server("-TERM");
        let deadline = Instant::now() + Duration::from_mins(1);
        while is_ready(self.folder.path(), self.child.id()) {
            assert!(Instant::now() < deadline, "Postgres on port {} does not shut down", self.port);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Has a standby take writes. Returns when it does.
    pub async fn promote(&self) {
        let db = self.look("postgres").await;
        db.execute_unprepared("SELECT pg_promote()").await.unwrap();
        db.close().await.unwrap();
    }

    /// Stops all of its processes in the middle of whatever they do, until [`Postgres::thaw`].
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        // The server first, lest it starts more of them.
        self.signal_server(signal);
        let of_server = Command::new("pgrep").args(["-P", &self.child.id().to_string()]).output().unwrap();
        let sessions = String::from_utf8(of_server.stdout).unwrap();
        // Some may have ended meanwhile.
        let _ = Command::new("kill").arg(signal).args(sessions.split_whitespace()).stderr(Stdio::null()).status();
    }

    /// To the server alone, and to none of its sessions.
    fn signal_server(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status().unwrap();
        assert!(sent.success(), "kill {signal}");
    }

    /// Starts it again where it was, with the data that it had.
    pub fn restart(&mut self) {
        self.stop();
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            if let Some(child) = run(self.port, self.folder.path(), self.settings) {
                self.child = child;
                return;
            }
            assert!(Instant::now() < deadline, "Postgres does not start again on port {}", self.port);
        }
    }
}

/// A number that a server tells.
pub async fn number(db: &DatabaseConnection, sql: &str) -> i64 {
    let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
    row.unwrap().try_get_by_index(0).unwrap()
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Who it runs as, where we are root, as whom it refuses to run.
pub(crate) fn account() -> Option<(u32, u32)> {
    let account = std::env::var("FREEHOLD_TEST_SERVERS_ACCOUNT").ok()?;
    let (uid, gid) = account.split_once(':').unwrap();
    Some((uid.parse().unwrap(), gid.parse().unwrap()))
}

/// A folder of a server's own.
fn new_folder() -> TempDir {
    let folder = tempfile::Builder::new().prefix("freehold-").tempdir().unwrap();
    give(folder.path());
    folder
}

/// Gives a file or a folder to the account that servers run as.
fn give(path: &Path) {
    if let Some((uid, gid)) = account() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

fn command(program: &str, folder: &Path) -> Command {
    let programs = std::env::var("FREEHOLD_TEST_POSTGRES_PROGRAMS");
    let programs = PathBuf::from(programs.expect("run this by `cargo xtask test`, which finds Postgres' programs"));
    // Links lead to the folder that has all of them.
    let server = fs::canonicalize(programs.join("postgres")).unwrap();
    let mut command = Command::new(server.with_file_name(program));
    command.current_dir(folder).stdin(Stdio::null());
    if let Some((uid, gid)) = account() {
        command.uid(uid).gid(gid);
    }
    command
}

/// None: it ended, most likely because the port is taken.
fn run(port: u16, folder: &Path, settings: &[&str]) -> Option<Child> {
    let mut postgres = command("postgres", folder);
    postgres.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
    postgres.args(["-c", &format!("unix_socket_directories={}", folder.display()), "-c", "fsync=off"]);
    for setting in settings {
        postgres.args(["-c", setting]);
    }
    let mut child = postgres.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        if is_ready(folder, child.id()) {
            return Some(child);
        }
        assert!(Instant::now() < deadline, "a Postgres does not get ready on port {port}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Whether the server of this process lets sessions begin.
fn is_ready(folder: &Path, process: u32) -> bool {
    // Of a start before, the file says another process.
    let state = fs::read_to_string(folder.join("data/postmaster.pid")).unwrap_or_default();
    let mut lines = state.lines();
    lines.next() == Some(&process.to_string()) && lines.nth(6).is_some_and(|state| state.trim() == "ready")
}
