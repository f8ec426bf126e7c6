//! Cargo, called from within cargo: the workspace's root, builds, and the binaries they made.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::leash::{Leash, Manners};
use crate::stop::Stop;

/// The workspace that this tool was built from.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// A cargo command in the workspace, as if typed by hand: what the cargo that runs us has set for us
/// alone would make build scripts that watch those variables run again, and much be built anew.
pub(crate) fn command() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root());
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Checks, before the long build, that what it needs is there.
pub(crate) fn ensure_tools() -> Result<()> {
    let is_there = |tool: &str| {
        Command::new(tool)
            .arg("--version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    if !is_there("cargo") {
        bail!("cargo does not work here; install the Rust toolchain from https://rustup.rs");
    }
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    // CC may carry arguments, or a launcher in front.
    if !compiler.contains(' ') && !is_there(&compiler) {
        bail!(
            "no C compiler ({compiler}), which SQLite is built with; install one (Debian: \
             apt-get install build-essential, Fedora: dnf install gcc make, macOS: xcode-select --install)"
        );
    }
    if !is_there("make") {
        bail!(
            "no make, which the allocator is built with; install it (Debian: apt-get install build-essential, \
             Fedora: dnf install make, macOS: xcode-select --install)"
        );
    }
    Ok(())
}

/// Runs a cargo command, stopped by a signal, and says how it ended.
pub(crate) fn run(command: &Command, stop: &Stop) -> Result<ExitStatus> {
    Leash::spawn(command, Manners::default(), |_| {})?.wait(stop)
}

/// Builds, showing cargo's own progress, and answers where each binary is.
pub(crate) fn build(args: &[&str], stop: &Stop) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = command();
    command.arg("build").args(args).arg("--message-format=json-render-diagnostics");
    let mut leash = Leash::spawn(&command, Manners::default(), |shell| {
        shell.stdout(Stdio::piped());
    })?;
    let output = leash.child().stdout.take().context("cargo has no output")?;
    let messages = std::thread::spawn(move || {
        BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_str::<Message>(&line).ok())
            .filter_map(|message| Some((message.target?.name, message.executable?)))
            .collect()
    });
    let status = leash.wait(stop)?;
    if stop.is_wanted() {
        bail!("stopped on request");
    }
    if !status.success() {
        bail!("`cargo build {}` failed", args.join(" "));
    }
    messages.join().map_err(|_| anyhow::anyhow!("could not read what cargo built"))
}

/// The path of one binary of a build.
pub(crate) fn binary<'a>(built: &'a BTreeMap<String, PathBuf>, name: &str) -> Result<&'a Path> {
    built.get(name).map(PathBuf::as_path).with_context(|| format!("the build made no binary {name}"))
}

#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}
