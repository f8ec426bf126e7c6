//! `freehold`: tenants, servers, the fleet's schema and the audit trail from the command line. A client of the control plane's
//! HTTP API and of nothing else, so that it runs where no plane and no toolchain does.
//!
//! Stdout has the answer and nothing besides; what is said to a person goes to stderr.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

mod access;
mod audit;
mod client;
mod completions;
mod fleet;
mod operation;
mod output;
mod progress;
mod server;
mod table;
mod tenant;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use client::Client;
use fleet::BudgetSpent;
use output::{ClosedOutput, Output, note};

/// Tenants, servers, the databases' schema and the audit trail, from the command line
#[derive(Parser)]
#[command(name = "freehold", bin_name = "freehold", version)]
#[command(after_help = "\
Start here: `freehold tenant list`.

Answers go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 not done, 2 not understood, \
or a rollout's error budget is spent.")]
struct Cli {
    #[command(flatten)]
    access: access::Options,
    /// Print the API's JSON, one document, instead of a table
    ///
    /// A list is one array of all items. Where the API answers nothing, nothing is printed.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create, change, repair and delete tenants
    #[command(subcommand)]
    Tenant(tenant::Command),
    /// List, show, add and change the servers that hold the tenants' databases
    #[command(subcommand)]
    Server(server::Command),
    /// Bring every tenant's database to a schema version, wave by wave
    #[command(subcommand)]
    Fleet(fleet::Command),
    /// List, export and verify what was done and noticed
    #[command(subcommand)]
    Audit(audit::Command),
    /// Print a shell's completions: `source <(freehold completions bash)`
    Completions(completions::Options),
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read us has seen enough, as `head` does: as if SIGPIPE had ended us.
        Err(error) if error.is::<ClosedOutput>() => ExitCode::from(141),
        Err(error) => {
            note(&format!("error: {error:#}"));
            if error.is::<BudgetSpent>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let output = Output { is_json: cli.json };
    match cli.command {
        Command::Tenant(command) => command.run(&Client::new(cli.access.find()?), output),
        Command::Server(command) => command.run(&Client::new(cli.access.find()?), output),
        Command::Fleet(command) => command.run(&Client::new(cli.access.find()?), output),
        Command::Audit(command) => command.run(output, || Ok(Client::new(cli.access.find()?))),
        Command::Completions(options) => completions::run(&options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_commands_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_anywhere() {
        for typed in ["freehold --json tenant list", "freehold tenant --json list", "freehold tenant list --json"] {
            assert!(Cli::try_parse_from(typed.split(' ')).unwrap().json, "{typed}");
        }
    }
}
