//! What the data planes are held against: the same list on plain axum and SeaORM, one pool for each tenant in a map, with or
//! without PgBouncer between.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use end_to_end::process::folder;
use hyper::header::{HeaderName, HeaderValue};
use tempfile::TempDir;

use super::crowd::Asked;

/// How the pools are.
#[derive(Clone, Copy)]
pub(super) struct Pools {
    pub(super) connections: u32,
    /// After which an idle connection is closed; none: never.
    pub(super) idle: Option<Duration>,
}

/// The process; it goes with its value.
pub(super) struct Plain {
    child: Child,
    url: String,
    _folder: TempDir,
}

impl Plain {
    pub(super) fn start(urls: &[String], pools: Pools) -> Self {
        let own = tempfile::tempdir().unwrap();
        let file = own.path().join("urls");
        fs::write(&file, urls.join("\n")).unwrap();
        let mut command = Command::new(folder().join("plain-pets"));
        command.env("PLAIN_PETS_URLS", &file).env("PLAIN_PETS_CONNECTIONS", pools.connections.to_string());
        if let Some(idle) = pools.idle {
            command.env("PLAIN_PETS_IDLE_MS", idle.as_millis().to_string());
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned(), _folder: own }
    }

    pub(super) fn asked(&self, tenants: usize) -> Asked {
        let name = HeaderName::from_static("x-tenant");
        let headers = (0..tenants).map(|number| (name.clone(), HeaderValue::from(number))).collect();
        Asked { nodes: vec![self.url.clone()], headers }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A PgBouncer in session pooling before one server; it goes with its value.
pub(super) struct Bouncer {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Bouncer {
    pub(super) fn start(urls: &[String], idle: Duration) -> Self {
        let own = tempfile::Builder::new().prefix("freehold-").tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let parsed = urls.iter().map(|url| reqwest::Url::parse(url).unwrap());
        let users: Vec<String> = parsed
            .clone()
            .map(|url| format!("\"{}\" \"{}\"", url.username(), url.password().unwrap_or_default()))
            .collect();
        let server = parsed.clone().next().unwrap();
        let (users_file, config) = (own.path().join("users"), own.path().join("pgbouncer.ini"));
        fs::write(&users_file, users.join("\n")).unwrap();
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = session\ndefault_pool_size = 4\n\
             max_client_conn = 10000\nserver_idle_timeout = {}\nserver_reset_query =\nignore_startup_parameters = options,extra_float_digits\n\
             query_wait_timeout = 3\nlog_connections = 0\nlog_disconnections = 0\nlog_pooler_errors = 0\n",
            server.port().unwrap_or(5432),
            users_file.display(),
            idle.as_secs_f64(),
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new(pgbouncer());
        command.arg("-q").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        if let Ok(account) = std::env::var("FREEHOLD_TEST_SERVERS_ACCOUNT") {
            // It refuses to run as root.
            let (uid, gid) = account.split_once(':').unwrap();
            let (uid, gid) = (uid.parse().unwrap(), gid.parse().unwrap());
            for path in [own.path(), &users_file, &config] {
                std::os::unix::fs::chown(path, Some(uid), Some(gid)).unwrap();
            }
            command.uid(uid).gid(gid);
        }
        let child = command.spawn().unwrap();
        let bouncer = Self { child, port, _folder: own };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "PgBouncer does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        bouncer
    }

    /// The same databases, through it.
    pub(super) fn through(&self, urls: &[String]) -> Vec<String> {
        let through = |url: &String| {
            let mut url = reqwest::Url::parse(url).unwrap();
            url.set_port(Some(self.port)).unwrap();
            url.set_host(Some("127.0.0.1")).unwrap();
            url.set_query(None);
            url.to_string()
        };
        urls.iter().map(through).collect()
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program of PgBouncer: the one that `cargo xtask bench` has found, or one on the PATH.
fn pgbouncer() -> OsString {
    std::env::var_os("FREEHOLD_TEST_PGBOUNCER").unwrap_or_else(|| "pgbouncer".into())
}

/// Ends the bench where PgBouncer is not installed. Without it there is no figure for some of the targets.
pub(super) fn require_bouncer() {
    let asked = Command::new(pgbouncer()).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert!(
        asked.is_ok_and(|status| status.success()),
        "PgBouncer is not installed, and the bench `pools` compares data planes with it: install the package pgbouncer, \
         and run the bench again"
    );
}
