//! `freehold tenant rename`.

use anyhow::{Context as _, Result};
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use super::Tenant;
use crate::client::{Client, path};
use crate::output::Output;

/// What is typed after `freehold tenant rename`.
#[derive(clap::Args)]
#[command(override_usage = "freehold tenant rename [OPTIONS] <TENANT> <--slug SLUG | --name NAME>")]
pub(crate) struct Options {
    /// Its slug or id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    tenant: String,
    /// Its new slug, in host names, paths and headers; the old one leads nowhere, and is held back as on deletion
    #[arg(long, required_unless_present = "name")]
    slug: Option<String>,
    /// Its new name, for people
    #[arg(long)]
    name: Option<String>,
}

#[derive(Serialize)]
struct Change<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    slug: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let change = Change { slug: options.slug.as_deref(), name: options.name.as_deref() };
    let answer = client.patch(&path(["tenants", &options.tenant]), &serde_json::to_string(&change)?);
    let answer = answer.with_context(|| format!("could not rename {}", options.tenant))?;
    let tenant: Tenant = answer.json("tenant")?;
    output.show(answer.text(), || tenant.facts().to_string())
}
