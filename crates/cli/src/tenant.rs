//! `freehold tenant`: a file for each command, and how a tenant is shown.

mod config;
mod create;
mod delete;
mod doctor;
mod domain;
mod issuer;
mod key;
mod limits;
mod list;
mod reconnect;
mod rename;
mod rewrap;
mod rotate;
mod show;
mod status;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;

use crate::client::Client;
use crate::operation::Operation;
use crate::output::{Output, moment};
use crate::table::{Table, or_nothing};

/// What is typed after `freehold tenant`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create a tenant with a database of its own, and wait until it is active
    Create(create::Options),
    /// List tenants
    List(list::Options),
    /// Show a tenant, and what was last done with it
    Show(Named),
    /// Suspend an active tenant: it is refused at once, and keeps its data
    Suspend(Named),
    /// Resume a suspended tenant
    Resume(Named),
    /// Rotate the credentials of a tenant's database, or of every tenant's; no request fails for it
    Rotate(rotate::Options),
    /// Replace all connections that data planes have to a tenant's database; no request fails for it
    ///
    /// Idle connections are closed at once, those in use after their statement or transaction. Use it when sessions keep what is
    /// so no longer: after a failover, or after settings of the role or the database were changed.
    Reconnect(reconnect::Options),
    /// Delete a tenant: it is refused at once, and its data goes when the grace period ends
    Delete(delete::Options),
    /// Restore a tenant that is being deleted, as it was before
    Restore(Named),
    /// Give a tenant another slug or name
    Rename(rename::Options),
    /// A tenant's API keys
    #[command(subcommand)]
    Key(key::Command),
    /// A tenant's configuration
    #[command(subcommand)]
    Config(config::Command),
    /// A tenant's own limits, in place of its plan's
    #[command(subcommand)]
    Limits(limits::Command),
    /// Who else may say who calls: issuers of signed tokens
    #[command(subcommand)]
    Issuer(issuer::Command),
    /// A tenant's custom hosts
    #[command(subcommand)]
    Domain(domain::Command),
    /// Compare the registry with the servers, and name what does not fit
    ///
    /// Exits with 1 if anything is left to do.
    Doctor(doctor::Options),
    /// Seal everything under the current key of each key ring
    ///
    /// Exits with 1 if something could not be opened.
    Rewrap,
}

/// A command about one tenant.
#[derive(clap::Args)]
pub(crate) struct Named {
    /// Its slug or id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    tenant: String,
}

/// Whether and how long to wait for an operation.
#[derive(clap::Args)]
pub(crate) struct Waiting {
    /// Do not wait until it is done
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Wait no longer than this; the control plane goes on by itself
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl Waiting {
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

impl Command {
    pub(crate) fn run(self, client: &Client, output: Output) -> Result<()> {
        match self {
            Self::Create(options) => create::run(client, output, options),
            Self::List(options) => list::run(client, output, &options),
            Self::Show(named) => show::run(client, output, &named.tenant),
            Self::Suspend(named) => status::run(client, output, &named.tenant, "suspend"),
            Self::Resume(named) => status::run(client, output, &named.tenant, "resume"),
            Self::Rotate(options) => rotate::run(client, output, &options),
            Self::Reconnect(options) => reconnect::run(client, output, &options),
            Self::Delete(options) => delete::run(client, output, &options),
            Self::Restore(named) => status::run(client, output, &named.tenant, "restore"),
            Self::Rename(options) => rename::run(client, output, &options),
            Self::Key(command) => key::run(client, output, command),
            Self::Config(command) => config::run(client, output, command),
            Self::Limits(command) => limits::run(client, output, command),
            Self::Issuer(command) => issuer::run(client, output, command),
            Self::Domain(command) => domain::run(client, output, command),
            Self::Doctor(options) => doctor::run(client, output, &options),
            Self::Rewrap => rewrap::run(client, output),
        }
    }
}

/// A tenant, as far as we show it.
#[derive(Debug, Deserialize)]
struct Tenant {
    id: String,
    slug: String,
    #[serde(default)]
    name: String,
    status: String,
    #[serde(default)]
    plan: String,
    limits: Option<BTreeMap<String, u64>>,
    region: Option<String>,
    admin_email: Option<String>,
    server: Option<String>,
    #[serde(default)]
    schema_version: i32,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    updated_at: String,
    delete_after: Option<String>,
}

/// A tenant, and what is being done with it.
#[derive(Deserialize)]
struct TenantAndOperation {
    tenant: Tenant,
    operation: Operation,
}

impl Tenant {
    /// Everything of it, a line each.
    fn facts(&self) -> Table {
        let mut table = Table::facts();
        table.row(["slug", &self.slug]);
        table.row(["name", &self.name]);
        table.row(["id", &self.id]);
        table.row(["status", &self.status]);
        table.row(["plan", &self.plan]);
        if let Some(limits) = &self.limits {
            let own: Vec<String> = limits.iter().map(|(what, much)| format!("{what} {much}")).collect();
            table.row(["its own limits", &own.join(", ")]);
        }
        table.row(["region", or_nothing(self.region.as_deref())]);
        table.row(["server", or_nothing(self.server.as_deref())]);
        table.row(["admin email", or_nothing(self.admin_email.as_deref())]);
        table.row(["schema version", &self.schema_version.to_string()]);
        table.row(["generation", &self.generation.to_string()]);
        table.row(["created", &moment(&self.created_at)]);
        table.row(["updated", &moment(&self.updated_at)]);
        if let Some(end) = &self.delete_after {
            table.row(["restorable until", &moment(end)]);
        }
        table
    }
}
