//! `cargo xtask lint`: format, clippy, documentation, and taste as a failing check.
//!
//! It runs all of them and tells at the end which failed, so that one round of repairs is enough.

mod arrows;
mod code;
mod tidy;
mod tree;

use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::cargo;
use tree::Tree;

/// What is typed after `cargo xtask lint`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only the rules of the house, which need no build
    #[arg(long)]
    tidy: bool,
}

/// Name, environment, arguments.
type Check = (&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]);

const CHECKS: [Check; 3] = [
    ("fmt", &[], &["fmt", "--all", "--check"]),
    ("clippy", &[], &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    ("doc", &[("RUSTDOCFLAGS", "-Dwarnings")], &["doc", "--workspace", "--no-deps"]),
];

pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let mut failed = Vec::new();
    if !options.tidy {
        for (name, env, args) in CHECKS {
            eprintln!("      Lint cargo {}", args.join(" "));
            // In our own process group: Ctrl-C ends both, and nothing needs to be cleaned up.
            let status =
                cargo::command().args(args).envs(env.iter().copied()).status().context("could not start cargo")?;
            if !status.success() {
                failed.push(name);
            }
        }
    }

    eprintln!("      Lint tidy");
    let findings = tidy::findings(&Tree::read(cargo::root())?);
    for finding in &findings {
        eprintln!("{finding}");
    }
    if !findings.is_empty() {
        eprintln!("tidy: {} findings", findings.len());
        failed.push("tidy");
    }

    if failed.is_empty() {
        eprintln!("      Lint all is well");
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("error: failed: {}", failed.join(", "));
    Ok(ExitCode::FAILURE)
}
