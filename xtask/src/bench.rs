//! `cargo xtask bench`: a release build, throwaway servers, and the bench program of `tests/`, which
//! does the measuring, prints the tables and writes the results.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::cargo;
use crate::leash::{Leash, Manners};
use crate::servers::Servers;
use crate::stop::Stop;

/// What benches run. Each is optimised as a whole, which takes minutes: those that only tests need are left out.
const PROGRAMS: [&str; 5] = ["bench", "plain-pets", "petstore-control-plane", "petstore-data-plane", "next-data-plane"];

/// What is typed after `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which bench to run; all of them without it
    name: Option<String>,
    /// Fewer rounds and a shorter time each: a look, not a measurement
    #[arg(long)]
    quick: bool,
    /// One part of the bench `pools`, since all of it takes an hour; the error of an unknown part lists the parts
    #[arg(long, value_name = "PART", requires = "name")]
    only: Option<String>,
}

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    cargo::ensure_tools()?;
    let stop = Stop::on_signals()?;
    let mut wanted = vec!["--release", "-p", "petstore", "-p", "end-to-end"];
    wanted.extend(PROGRAMS.iter().flat_map(|program| ["--bin", program]));
    let built = cargo::build(&wanted, &stop)?;
    let program = cargo::binary(&built, "bench")?;

    let output = Command::new(program).arg("--list").output().context("could not start the bench program")?;
    if !output.status.success() {
        bail!("`bench --list` failed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let known: Vec<String> = String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect();
    let names = match &options.name {
        Some(name) if known.contains(name) => vec![name.clone()],
        Some(name) => bail!("there is no bench `{name}`; there are: {}", known.join(", ")),
        None => known,
    };

    let results = cargo::root().join("target/bench");
    std::fs::create_dir_all(&results).with_context(|| format!("could not make {}", results.display()))?;
    let mut failed = Vec::new();
    for name in names {
        // Servers of its own for each: no bench measures what another left behind.
        let servers = Servers::start(&stop)?;
        let mut command = Command::new(program);
        command.arg(&name).current_dir(cargo::root());
        if options.quick {
            command.arg("--quick");
        }
        if let Some(part) = &options.only {
            command.args(["--only", part]);
        }
        servers.export(&mut command);
        command.env("FREEHOLD_BENCH_OUT", &results);
        let status = Leash::spawn(&command, Manners::default(), |_| {})?.wait(&stop)?;
        if stop.is_wanted() {
            bail!("stopped on request");
        }
        if !status.success() {
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed or below target: {}", failed.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
