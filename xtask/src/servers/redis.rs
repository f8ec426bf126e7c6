//! A throwaway Redis (or Valkey), which writes nothing to disk.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::account::{self, Account};
use super::with_a_free_port;
use crate::leash::{Leash, Manners};
use crate::stop::Stop;

/// A running server; dropping it stops it.
pub(super) struct Redis {
    port: u16,
    // Before the folder: fields drop in order, and the server goes first.
    _server: Leash,
    _folder: tempfile::TempDir,
}

impl Redis {
    pub(super) fn start(program: &Path, account: Option<&Account>, stop: &Stop) -> Result<Self> {
        with_a_free_port(|port| Self::start_on(port, program, account, stop))
    }

    fn start_on(port: u16, program: &Path, account: Option<&Account>, stop: &Stop) -> Result<Self> {
        let folder = account::folder(account)?;
        let mut command = Command::new(program);
        command
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no", "--dir"])
            .arg(folder.path());
        command.current_dir(folder.path());
        let log_path = folder.path().join("redis.log");
        let log = fs::File::create(&log_path)?;
        let (out, err) = (log.try_clone()?, log);
        let manners = Manners { remove: Some(folder.path()), ..Manners::default() };
        let mut server = Leash::spawn(&command, manners, |shell| {
            shell.stdout(out).stderr(err);
            if let Some(account) = account {
                account.dress(shell);
            }
        })?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while !answers(port) {
            if server.ended()?.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                bail!("the throwaway Redis did not start; its log:\n{}", log.trim_end());
            }
            stop.pause(Duration::from_millis(20))?;
        }
        Ok(Self { port, _server: server, _folder: folder })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
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
