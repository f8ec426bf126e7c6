//! Freehold's own tool, `cargo xtask`: run both planes, test them, check the house, measure.
//!
//! It imports no crate of the house, so that it builds in seconds and still works when the house
//! does not compile. It talks to the planes as anyone does: configuration in, HTTP out.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool speaks to its user")]

mod bench;
mod cargo;
mod dev;
mod freehold;
mod leash;
mod lint;
mod servers;
mod stop;
mod suite;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Everything that Freehold's developers and newcomers type.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
#[command(after_help = "Start here: `cargo xtask dev`. Before you push: `cargo xtask lint`, `cargo xtask test`.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build and run both planes with two demo tenants; Ctrl-C drains and stops
    ///
    /// All state lives in .freehold/ (or --dir): a second run goes on with what is there.
    Dev(dev::Options),
    /// Run every test, on throwaway Postgres and Redis servers of its own
    ///
    /// Finds Postgres (15 or newer) and Redis or Valkey on the machine, and installs what is missing
    /// if it may. The servers live on free ports with their data in a temporary folder, and are gone
    /// afterwards, whatever happened.
    Test(suite::Options),
    /// Check format, clippy, documentation and the rules of the house; reports all that it finds
    Lint(lint::Options),
    /// Measure on a release build; prints tables and writes target/bench/NAME.json
    Bench(bench::Options),
    /// Create, list, change and repair tenants at a control plane; `cargo xtask tenant --help` tells how
    ///
    /// Builds and runs `freehold tenant` with all that follows, and ends with its exit code. It asks the control plane
    /// that `cargo xtask dev` started, or the one that FREEHOLD_URL and FREEHOLD_TOKEN name.
    Tenant(freehold::Options),
    /// List, show, add and change servers; `cargo xtask server --help` tells how
    ///
    /// Builds and runs `freehold server` with all that follows, as `cargo xtask tenant` does.
    Server(freehold::Options),
    /// Bring every tenant's database to a schema version; `cargo xtask fleet --help` tells how
    ///
    /// Builds and runs `freehold fleet` with all that follows, as `cargo xtask tenant` does: release pipelines with a
    /// checkout call `cargo xtask fleet migrate`.
    Fleet(freehold::Options),
    /// List, export and verify the audit trail; `cargo xtask audit --help` tells how
    ///
    /// Builds and runs `freehold audit` with all that follows, as `cargo xtask tenant` does.
    Audit(freehold::Options),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Dev(options) => dev::run(&options),
        Command::Test(options) => suite::run(&options),
        Command::Lint(options) => lint::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Tenant(options) => freehold::run("tenant", &options),
        Command::Server(options) => freehold::run("server", &options),
        Command::Fleet(options) => freehold::run("fleet", &options),
        Command::Audit(options) => freehold::run("audit", &options),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
