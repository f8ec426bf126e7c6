//! `cargo xtask tenant`, `server`, `fleet` and `audit`: handed to `freehold`, the command-line client, which is built if need be.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::cargo;

/// What is typed after `cargo xtask tenant`, `server`, `fleet` or `audit`.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Options {
    /// Handed to `freehold`
    #[arg(value_name = "FREEHOLD ARGS", allow_hyphen_values = true, trailing_var_arg = true)]
    rest: Vec<OsString>,
}

/// Becomes `freehold`: its terminal, signals and exit code are ours.
pub(crate) fn run(word: &str, options: &Options) -> Result<ExitCode> {
    debug_assert!(options.rest.len() <= std::env::args_os().len());
    // Built into the same folder as this tool.
    let is_built = std::env::current_exe().is_ok_and(|path| path.with_file_name("freehold").exists());
    if !is_built && std::io::stderr().is_terminal() {
        eprintln!("  Building freehold (the first time takes a minute)");
    }
    let mut command = cargo::command();
    command.args(["run", "--quiet", "--package", "cli", "--bin", "freehold", "--", word]);
    // Not `options.rest`: clap takes away a `--` that freehold must see.
    command.args(std::env::args_os().skip(1).skip_while(|arg| arg != word).skip(1));
    Err(command.exec()).context("could not start cargo")
}
