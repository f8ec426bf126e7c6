//! Throwaway servers for tests and benches: a Postgres and a Redis on free ports, whose data lives in
//! a temporary folder and goes with them.
//!
//! They never outlive the command that started them, and never run as root.

mod account;
mod find;
mod install;
mod postgres;
mod redis;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::stop::Stop;
use account::Account;
use postgres::Postgres;
use redis::Redis;

/// Both servers; dropping them stops them and removes their data.
pub(crate) struct Servers {
    postgres: Postgres,
    redis: Redis,
    /// Where the programs `initdb` and `postgres` are.
    programs: PathBuf,
    pgbouncer: Option<PathBuf>,
    account: Option<Account>,
}

impl Servers {
    /// Finds, installs where it may, and starts.
    pub(crate) fn start(stop: &Stop) -> Result<Self> {
        let programs = find::or_install(stop)?;
        let account = Account::for_servers()?;
        let postgres = Postgres::start(&programs.postgres, account.as_ref(), stop)?;
        let redis = Redis::start(&programs.redis, account.as_ref(), stop)?;
        eprintln!(
            "     Servers Postgres {} on port {}, Redis on port {}",
            programs.postgres.major,
            postgres.port(),
            redis.port()
        );
        let pgbouncer = programs.pgbouncer;
        let programs = programs.postgres.postgres.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { postgres, redis, programs, pgbouncer, account })
    }

    /// Tells a command where they are.
    pub(crate) fn export(&self, command: &mut Command) {
        command
            .env("FREEHOLD_TEST_POSTGRES_URL", self.postgres.admin_url())
            .env("FREEHOLD_TEST_POSTGRES_SUPERUSER_URL", self.postgres.superuser_url())
            .env("FREEHOLD_TEST_REDIS_URL", self.redis.url())
            .env("FREEHOLD_TEST_POSTGRES_PROGRAMS", &self.programs);
        if let Some(pgbouncer) = &self.pgbouncer {
            command.env("FREEHOLD_TEST_PGBOUNCER", pgbouncer);
        }
        // For tests that start a server of their own, to stop it.
        if let Some(account) = &self.account {
            command.env("FREEHOLD_TEST_SERVERS_ACCOUNT", account.to_string());
        }
    }
}

/// A port that was free a moment ago. Another process may take it before the server does; starting
/// is tried again then.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

/// Tries a start that may lose its port to somebody else.
fn with_a_free_port<T>(start: impl Fn(u16) -> Result<T>) -> Result<T> {
    let mut last = None;
    for _ in 0..3 {
        match start(free_port()?) {
            Ok(server) => return Ok(server),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no attempt was made")))
}

/// 16 random bytes in hex: a password that needs no escaping anywhere.
fn password() -> Result<String> {
    let half = || getrandom::u64().map_err(|error| anyhow::anyhow!("no randomness: {error}"));
    Ok(format!("{:016x}{:016x}", half()?, half()?))
}
