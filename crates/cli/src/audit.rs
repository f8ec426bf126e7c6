//! `freehold audit`: the trail listed, exported, and verified without asking anybody.

mod export;
mod key;
mod list;
mod verify;

use anyhow::Result;
use clap::Subcommand;

use crate::client::Client;
use crate::output::Output;

/// What is typed after `freehold audit`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List what was done and noticed, the newest first
    List(list::Options),
    /// Write the trail with its signed checkpoints, as JSON lines
    Export(export::Options),
    /// Say whether an exported trail is what it was, and if not, which record was changed, removed, inserted or reordered
    ///
    /// Asks no control plane. Exits with 1 if anything is wrong.
    Verify(verify::Options),
    /// Print the public keys that checkpoints are verified with; keep them where nobody who writes the trail can
    Key,
}

impl Command {
    pub(crate) fn run(self, output: Output, client: impl FnOnce() -> Result<Client>) -> Result<()> {
        match self {
            Self::List(options) => list::run(&client()?, output, &options),
            Self::Export(options) => export::run(&client()?, output, &options),
            Self::Verify(options) => verify::run(output, &options),
            Self::Key => key::run(&client()?, output),
        }
    }
}
