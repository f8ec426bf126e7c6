//! `freehold fleet`: every tenant's database brought to a schema version, and how far that is.

mod events;
mod order;
mod plan;
mod rehearsal;
mod rollout;
mod selection;
mod status;
mod steer;
mod verify;
mod watch;

use anyhow::{Result, bail};
use clap::Subcommand;

use crate::client::{Client, path, query};
use crate::output::Output;
pub(crate) use watch::BudgetSpent;

/// What is typed after `freehold fleet`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show which schema versions the tenants' databases have, and the rollouts; or one rollout, with what failed
    Status(status::Options),
    /// Show what a rollout would do: who is behind, by what, and wave by wave; changes nothing
    ///
    /// The migrations are rehearsed on scratch databases, one for each version that is found: every statement is shown, the
    /// locks that are held before the commit, the tables that are written anew, and what of that holds tenants up.
    Plan(order::Options),
    /// Roll the fleet out to a schema version, and watch it
    ///
    /// What its migrations do that holds tenants up is said first. The control plane does it, and goes on whatever happens to
    /// this command. Exits with 0 once every tenant has the
    /// version, with 2 when the error budget was spent, and with 1 in every other case.
    Migrate(watch::Migrate),
    /// Watch a rollout until it has ended; exits as `migrate` does
    Watch(Which),
    /// Let nothing new begin; what is in flight finishes
    Pause(Which),
    /// Go on after a pause, or into the next wave where that was waited for
    Resume(Which),
    /// Give a rollout up: what has not begun is skipped, what is done stays
    Abort(Which),
    /// Try again what failed, and go on
    Retry(Which),
    /// Compare each tenant's schema with what its version says
    ///
    /// Shows what is missing and what is too much, a tenant at a time. Changes nothing. Exits with 0 only when all were looked
    /// at, and are as they should be.
    Verify(verify::Options),
}

/// A command about one rollout.
#[derive(clap::Args)]
pub(crate) struct Which {
    /// The rollout's id; the newest unless told
    #[arg(value_name = "ROLLOUT", value_parser = rollout_id)]
    rollout: Option<String>,
}

/// A rollout's id, and no slug or name: it has none.
fn rollout_id(typed: &str) -> Result<String, &'static str> {
    let is_id = typed.len() == 36
        && typed
            .bytes()
            .enumerate()
            .all(|(at, byte)| if [8, 13, 18, 23].contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() });
    if is_id { Ok(typed.to_owned()) } else { Err("a rollout is named by its id, as `freehold fleet status` shows it") }
}

impl Command {
    pub(crate) fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::Status(options) => status::run(client, output, &options),
            Self::Plan(options) => plan::run(client, output, &options),
            Self::Migrate(options) => watch::migrate(client, output, &options),
            Self::Watch(which) => watch::run(client, output, &which.find(client)?),
            Self::Pause(which) => steer::run(client, output, &which.find(client)?, "pause"),
            Self::Resume(which) => steer::run(client, output, &which.find(client)?, "resume"),
            Self::Abort(which) => steer::run(client, output, &which.find(client)?, "abort"),
            Self::Verify(options) => verify::run(client, output, &options),
            Self::Retry(which) => steer::run(client, output, &which.find(client)?, "retry"),
        }
    }
}

impl Which {
    /// The id that was typed, or the newest one's.
    fn find(&self, client: &Client) -> Result<String> {
        if let Some(id) = &self.rollout {
            return Ok(id.clone());
        }
        let newest = client.get(&(path(["rollouts"]) + &query([("limit", Some("1"))])))?;
        let newest: rollout::Page = newest.json("list of rollouts")?;
        match newest.items.into_iter().next() {
            Some(rollout) => Ok(rollout.id),
            None => bail!("there is no rollout yet\n  `freehold fleet migrate` begins one."),
        }
    }
}
