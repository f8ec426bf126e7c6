//! `freehold server`: a file for each command, and how a server is shown. Its admin URL goes in and is never shown.

mod add;
mod admin_url;
mod list;
mod set;
mod show;

use anyhow::Result;
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;

use crate::client::Client;
use crate::output::{Output, moment, plain};
use crate::table::Table;

/// What is typed after `freehold server`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List servers
    List,
    /// Show a server, and how the data planes share its connections
    Show(Named),
    /// Add a server, after the control plane has checked that it can use it
    Add(add::Options),
    /// Change a server; what you do not name stays as it is
    Set(set::Options),
}

/// A command about one server.
#[derive(clap::Args)]
pub(crate) struct Named {
    /// Name the server
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
}

impl Command {
    pub(crate) fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::List => list::run(client, output),
            Self::Show(named) => show::run(client, output, &named.name),
            Self::Add(options) => add::run(client, output, &options),
            Self::Set(options) => set::run(client, output, &options),
        }
    }
}

/// A server, as far as we show it.
#[derive(Debug, Deserialize)]
struct Server {
    name: String,
    #[serde(default)]
    id: String,
    engine: String,
    #[serde(default)]
    region: String,
    #[serde(default)]
    state: String,
    data_address: Option<String>,
    #[serde(default)]
    capacity: u64,
    #[serde(default)]
    connection_budget: u64,
    #[serde(default)]
    reserve: u64,
    #[serde(default)]
    connect_rate: u64,
    #[serde(default)]
    warm: u64,
    #[serde(default)]
    created_at: String,
    databases: Option<u64>,
    ready: Option<u64>,
    r#move: Option<Move>,
}

/// How far its tenants' URLs have followed it to another address.
#[derive(Debug, Deserialize)]
struct Move {
    operation: String,
    #[serde(default)]
    tenants: u64,
    #[serde(default)]
    done: u64,
    error: Option<String>,
}

impl Server {
    /// Everything of it, a line each.
    fn facts(&self) -> Table {
        let mut table = Table::facts();
        table.row(["name", &self.name]);
        table.row(["id", &self.id]);
        table.row(["engine", &self.engine]);
        table.row(["region", &self.region]);
        table.row(["state", &self.state]);
        if let Some(address) = &self.data_address {
            table.row(["data address", address]);
        }
        table.row(["capacity", &self.capacity.to_string()]);
        if let Some(databases) = self.databases {
            table.row(["databases", &databases.to_string()]);
        }
        table.row(["warm", &self.warm.to_string()]);
        if let Some(ready) = self.ready {
            table.row(["ready", &ready.to_string()]);
        }
        table.row(["connection budget", &self.connection_budget.to_string()]);
        // Files have no limit, and so no reserve.
        if self.reserve > 0 {
            table.row(["reserve", &self.reserve.to_string()]);
        }
        table.row(["connect rate", &self.connect_rate.to_string()]);
        table.row(["created", &moment(&self.created_at)]);
        if let Some(it) = &self.r#move {
            let why = it.error.as_ref().map(|error| format!(" ({})", plain(error))).unwrap_or_default();
            let far =
                format!("{} of {} tenants follow its address by operation {}{why}", it.done, it.tenants, it.operation);
            table.row(["move", &far]);
        }
        table
    }
}
