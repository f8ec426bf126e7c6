//! `freehold tenant limits`: limits of one tenant's own, in place of its plan's.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde_json::json;

use super::{Named, Tenant};
use crate::client::{Client, path};
use crate::output::Output;
use crate::table::Table;

/// What is typed after `freehold tenant limits`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show a tenant's own limits; its plan's hold for the rest
    Show(Named),
    /// Give a tenant limits of its own; those that are not named stay as they are
    ///
    /// They hold at once and on every data plane; what was used of the old ones counts.
    Set {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        limits: Limits,
    },
    /// Take a tenant's own limits away, so that its plan's hold
    Remove(Named),
}

/// Limits, as the API names them.
#[derive(clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Limits {
    /// Requests admitted in each window
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    requests: Option<u32>,
    /// Length of the window, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    window_seconds: Option<u32>,
    /// Requests that may come at once; counts only where --requests or the plan limits them
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    burst: Option<u32>,
    /// Requests of one client in each window
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    client_requests: Option<u32>,
    /// Requests of one client that may come at once; counts only where --client-requests or the plan limits them
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    client_burst: Option<u32>,
    /// Requests that one data plane serves at once
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    concurrency: Option<u32>,
}

impl Limits {
    fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = [
            ("requests", self.requests),
            ("window_seconds", self.window_seconds),
            ("burst", self.burst),
            ("client_requests", self.client_requests),
            ("client_burst", self.client_burst),
            ("concurrency", self.concurrency),
        ];
        all.into_iter().filter_map(|(name, limit)| Some((name, limit?.into())))
    }
}

pub(super) fn run(client: &Client, output: Output, command: Command) -> Result<()> {
    match command {
        Command::Show(Named { tenant }) => {
            let tenant: Tenant = client.get(&path(["tenants", &tenant]))?.json("tenant")?;
            show(output, &tenant)
        }
        Command::Set { named: Named { tenant }, limits } => {
            let before = client.get(&path(["tenants", &tenant]))?;
            let mut own: BTreeMap<String, u64> = before.json::<Tenant>("tenant")?.limits.unwrap_or_default();
            own.extend(limits.named().map(|(name, limit)| (name.to_owned(), limit)));
            let change = json!({ "limits": own }).to_string();
            // All of them are sent: those that somebody else changed meanwhile would be lost.
            let answer = client.patch_if(&path(["tenants", &tenant]), &change, before.etag());
            let answer = answer.with_context(|| format!("could not set limits of {tenant}"))?;
            show(output, &answer.json("tenant")?)
        }
        Command::Remove(Named { tenant }) => {
            let answer = client.patch(&path(["tenants", &tenant]), r#"{"limits":null}"#);
            let answer = answer.with_context(|| format!("could not remove the limits of {tenant}"))?;
            show(output, &answer.json("tenant")?)
        }
    }
}

fn show(output: Output, tenant: &Tenant) -> Result<()> {
    let own = tenant.limits.clone().unwrap_or_default();
    output.show_all(&own, || {
        let mut table = Table::facts();
        table.row(["plan", &tenant.plan]);
        for (name, limit) in &own {
            table.row([name, &limit.to_string()]);
        }
        if own.is_empty() {
            table.row(["its own limits", "none: its plan's hold"]);
        }
        table.to_string()
    })
}
