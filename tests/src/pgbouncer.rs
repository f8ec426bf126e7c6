//! A PgBouncer of one test's own, in front of a Postgres. It is configured by the words of the README. It goes with its value.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sea_orm::ConnectionTrait as _;
use tempfile::TempDir;

use crate::postgres::{Postgres, account};

const README: &str = include_str!("../../README.md");
const PASSWORD: &str = "password-of-the-tests-own-pooler";

/// A running pooler.
pub struct PgBouncer {
    /// `127.0.0.1:PORT`.
    pub address: String,
    child: Child,
    folder: TempDir,
}

/// What the README has between a fence of this kind and the next, the first of those that hold a word.
fn block(kind: &str, word: &str) -> &'static str {
    let fence = format!("\n```{kind}\n");
    let mut blocks = README.split(&*fence).skip(1).map(|rest| rest.split("\n```").next().unwrap());
    blocks.find(|block| block.contains(word)).unwrap_or_else(|| panic!("the README has no {kind} with {word}"))
}

impl PgBouncer {
    /// Whether this machine has the program. Otherwise it says which test was not tried.
    pub fn is_here(test: &str) -> bool {
        if std::env::var_os("FREEHOLD_TEST_PGBOUNCER").is_some() {
            return true;
        }
        let why = "no pgbouncer on this machine, or not run by `cargo xtask test`";
        eprintln!("NOT TRIED: {test}: {why}");
        if let Some(file) = std::env::var_os("FREEHOLD_TEST_NOT_TRIED") {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
            std::io::Write::write_all(&mut file, format!("{test}: {why}\n").as_bytes()).unwrap();
        }
        false
    }

    /// Makes the login role by which it reads the others' passwords, as the README says.
    pub async fn prepare(server: &Postgres) {
        let db = service::pool::open(server.url()).await.unwrap();
        let sql = block("sql", "CREATE ROLE pgbouncer").replace("PASSWORD-OF-THE-POOLER", PASSWORD);
        db.execute_unprepared(&sql).await.unwrap();
        db.close().await.unwrap();
    }

    /// Starts one in front of a server. `pool_mode` is `session` as in the README, or another.
    pub fn start(server: &Postgres, pool_mode: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("freehold-").tempdir().unwrap();
        let userlist = folder.path().join("userlist.txt");
        let users = block("text", "\"pgbouncer\"").replace("PASSWORD-OF-THE-POOLER", PASSWORD);
        fs::write(&userlist, users + "\n").unwrap();
        let place = server.place();
        let (_, port) = place.split_once(':').unwrap();
        // Somebody else may take the port meanwhile; then it is another one.
        for _ in 0..20 {
            let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let ini = block("ini", "[pgbouncer]")
                .replace("port=5432", &format!("port={port}"))
                .replace("listen_port = 6432", &format!("listen_port = {own}"))
                .replace("/etc/pgbouncer/userlist.txt", &userlist.display().to_string())
                .replace("pool_mode = session", &format!("pool_mode = {pool_mode}"));
            let file = folder.path().join("pgbouncer.ini");
            fs::write(&file, ini + "\nunix_socket_dir =\n").unwrap();
            for path in [folder.path(), &userlist, &file] {
                if let Some((uid, gid)) = account() {
                    chown(path, Some(uid), Some(gid)).unwrap();
                }
            }
            let mut command = Command::new(std::env::var_os("FREEHOLD_TEST_PGBOUNCER").unwrap());
            command.arg(&file).current_dir(folder.path()).stdin(Stdio::null());
            let log = fs::File::create(folder.path().join("log")).unwrap();
            command.stdout(log.try_clone().unwrap()).stderr(log);
            if let Some((uid, gid)) = account() {
                command.uid(uid).gid(gid);
            }
            let mut child = command.spawn().unwrap();
            let deadline = Instant::now() + Duration::from_secs(20);
            while child.try_wait().unwrap().is_none() {
                if TcpStream::connect(("127.0.0.1", own)).is_ok() {
                    return Self { address: format!("127.0.0.1:{own}"), child, folder };
                }
                assert!(Instant::now() < deadline, "a PgBouncer does not get ready on port {own}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        panic!("no PgBouncer started: {}", fs::read_to_string(folder.path().join("log")).unwrap_or_default());
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("--- the log of PgBouncer:\n{log}");
        }
    }
}
