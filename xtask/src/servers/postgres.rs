//! A throwaway Postgres. Fast rather than safe: nothing in it is meant to survive.
//!
//! It has two roles that can log in: a superuser for the harness, and the admin that Freehold is
//! given in real life, which may create databases and roles and is no superuser.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::account::{self, Account};
use super::find::PostgresPrograms;
use super::{password, with_a_free_port};
use crate::leash::{Leash, Manners};
use crate::stop::Stop;

const SUPERUSER: &str = "freehold_superuser";
const ADMIN: &str = "freehold_admin";

/// A running server; dropping it stops it and removes its data.
pub(super) struct Postgres {
    port: u16,
    superuser_password: String,
    admin_password: String,
    // Before the folder: fields drop in order, and the server goes first.
    _server: Leash,
    _folder: tempfile::TempDir,
}

impl Postgres {
    pub(super) fn start(programs: &PostgresPrograms, account: Option<&Account>, stop: &Stop) -> Result<Self> {
        with_a_free_port(|port| Self::start_on(port, programs, account, stop))
    }

    fn start_on(port: u16, programs: &PostgresPrograms, account: Option<&Account>, stop: &Stop) -> Result<Self> {
        let folder = account::folder(account)?;
        let data = folder.path().join("data");
        let (superuser_password, admin_password) = (password()?, password()?);
        create_cluster(programs, account, &data, &superuser_password)?;
        create_admin(programs, account, &data, &admin_password)?;

        let mut command = Command::new(&programs.postgres);
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        let sockets = folder.path().display().to_string();
        for setting in [
            "listen_addresses=127.0.0.1",
            &format!("unix_socket_directories={sockets}"),
            "max_connections=1000",
            "fsync=off",
            "synchronous_commit=off",
            "full_page_writes=off",
            "timezone=UTC",
        ] {
            command.args(["-c", setting]);
        }
        command.current_dir(folder.path());
        let log_path = folder.path().join("postgres.log");
        let log = fs::File::create(&log_path)?;
        let (out, err) = (log.try_clone()?, log);
        let manners = Manners {
            signal: "QUIT", // an immediate shutdown: nothing is worth a checkpoint
            grace: Duration::from_secs(5),
            remove: Some(folder.path()),
        };
        let mut server = Leash::spawn(&command, manners, |shell| {
            shell.stdout(out).stderr(err);
            if let Some(account) = account {
                account.dress(shell);
            }
        })?;

        let deadline = Instant::now() + Duration::from_mins(1);
        while !is_ready(&data) {
            if server.ended()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                bail!("the throwaway Postgres did not start; its log:\n{}", log.trim_end());
            }
            stop.pause(Duration::from_millis(20))?;
        }
        Ok(Self { port, superuser_password, admin_password, _server: server, _folder: folder })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// With the rights that Freehold asks for: LOGIN, CREATEDB, CREATEROLE.
    pub(super) fn admin_url(&self) -> String {
        self.url(ADMIN, &self.admin_password)
    }

    /// For the harness alone: terminating sessions, looking behind the scenes.
    pub(super) fn superuser_url(&self) -> String {
        self.url(SUPERUSER, &self.superuser_password)
    }

    fn url(&self, role: &str, password: &str) -> String {
        format!("postgres://{role}:{password}@127.0.0.1:{}/postgres", self.port)
    }
}

fn create_cluster(
    programs: &PostgresPrograms,
    account: Option<&Account>,
    data: &Path,
    superuser_password: &str,
) -> Result<()> {
    // A file in the servers' own folder, which nobody else enters.
    let password_file = data.with_extension("password");
    fs::write(&password_file, superuser_password)?;
    if let Some(account) = account {
        account.hand_over(&password_file)?;
    }
    let mut command = Command::new(&programs.initdb);
    command.arg("-D").arg(data).args(["-U", SUPERUSER, "--auth=scram-sha-256", "--pwfile"]).arg(password_file).args([
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]);
    run_with_input(command, account, data, "")
}

/// By the server's single-user mode: a client program may not be installed.
fn create_admin(
    programs: &PostgresPrograms,
    account: Option<&Account>,
    data: &Path,
    admin_password: &str,
) -> Result<()> {
    let mut command = Command::new(&programs.postgres);
    command.arg("--single").args(["-c", "exit_on_error=on", "-c", "fsync=off"]).arg("-D").arg(data).arg("postgres");
    let statement = format!("CREATE ROLE {ADMIN} LOGIN CREATEDB CREATEROLE NOSUPERUSER PASSWORD '{admin_password}'\n");
    run_with_input(command, account, data, &statement)
}

fn run_with_input(mut command: Command, account: Option<&Account>, data: &Path, input: &str) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    if let Some(account) = account {
        account.dress(&mut command);
    }
    if let Some(folder) = data.parent() {
        command.current_dir(folder);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {name}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ended early tells why below.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{name} failed:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

/// The eighth line of the server's own pid file is its state, as `pg_ctl` reads it
/// (LOCK_FILE_LINE_PM_STATUS in Postgres' pidfile.h).
fn is_ready(data: &Path) -> bool {
    fs::read_to_string(data.join("postmaster.pid"))
        .is_ok_and(|file| file.lines().nth(7).is_some_and(|state| state.trim() == "ready"))
}
