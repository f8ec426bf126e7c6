//! What a shell needs to complete what is typed after `freehold`.

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{Cli, output};

/// What is typed after `freehold completions`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Whose
    shell: Shell,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    // Into memory first: written straight to a closed pipe, it would panic.
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Cli::command(), "freehold", &mut script);
    output::print(String::from_utf8(script).context("the completions are no text")?.trim_end())
}
