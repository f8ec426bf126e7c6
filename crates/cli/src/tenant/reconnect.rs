//! `freehold tenant reconnect`: other connections to a tenant's database, on every data plane.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;

use super::Tenant;
use crate::client::{Client, path};
use crate::output::Output;

/// What is typed after `freehold tenant reconnect`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Its slug or id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    tenant: String,
    /// Do not wait for the data planes
    #[arg(long)]
    no_wait: bool,
    /// Wait no longer than this; the data planes go on by themselves
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=50))]
    timeout: u64,
}

/// What the API answers.
#[derive(Deserialize)]
struct Reconnection {
    tenant: Tenant,
    nodes_behind: Option<usize>,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let name = &options.tenant;
    let path = path(["tenants", name, "reconnect"]);
    let answer = if options.no_wait {
        client.post(&path, None)
    } else {
        client.post_and_wait(&path, None, Duration::from_secs(options.timeout))
    };
    let answer = answer.with_context(|| format!("could not replace the connections of {name}"))?;
    let Reconnection { tenant, nodes_behind } = answer.json("reconnection")?;
    let slug = &tenant.slug;
    let is_done = nodes_behind == Some(0);
    if is_done || options.no_wait || output.is_json {
        output.show(answer.text(), || match nodes_behind {
            Some(0) => format!("{slug} has other connections on every data plane"),
            Some(behind) => format!("{slug} gets other connections: {behind} data planes have not replaced theirs yet"),
            None => format!("{slug} gets other connections"),
        })?;
    }
    if !is_done && !options.no_wait {
        let behind = nodes_behind.map_or_else(|| "some".to_owned(), |behind| behind.to_string());
        bail!(
            "{behind} data planes have not replaced the connections of {slug} within --timeout, and go on by themselves\n  \
             GET /v1/nodes tells how far each is. Do not repeat the command: it would replace all of them again."
        );
    }
    Ok(())
}
