//! `freehold tenant create`: asks for the tenant, waits for its database, and makes its first key if that is wanted.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::Serialize;
use serde_json::value::RawValue;

use super::config::Json;
use super::{Tenant, TenantAndOperation, Waiting, key};
use crate::client::{Client, path};
use crate::operation;
use crate::output::Output;
use crate::progress::Progress;

/// What is typed after `freehold tenant create`.
#[derive(clap::Args)]
#[command(after_help = "Example: freehold tenant create acme --name 'Acme Inc.' --plan premium --key")]
pub(crate) struct Options {
    /// Its name in host names, paths and headers
    slug: String,
    /// Its name, for people [default: the slug]
    #[arg(long)]
    name: Option<String>,
    /// Its plan [default: free]
    #[arg(long)]
    plan: Option<String>,
    /// Where its data must be [default: anywhere]
    #[arg(long)]
    region: Option<String>,
    /// Who administers it
    #[arg(long, value_name = "EMAIL")]
    admin_email: Option<String>,
    /// An entry of its configuration; repeat it
    #[arg(long, value_name = "KEY=JSON", value_parser = entry)]
    config: Vec<(String, Json)>,
    /// Create its first API key too, of this name, and print it: this once
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "first", conflicts_with = "no_wait")]
    key: Option<String>,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Serialize)]
struct NewTenant<'a> {
    slug: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin_email: Option<&'a str>,
    config: BTreeMap<String, Box<RawValue>>,
}

/// What is told of it in the end.
#[derive(Serialize)]
struct Document {
    tenant: Box<RawValue>,
    operation: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Box<RawValue>>,
}

fn entry(text: &str) -> Result<(String, Json)> {
    let (key, value) = text.split_once('=').ok_or_else(|| anyhow!("write KEY=JSON, as in theme='\"blue\"'"))?;
    ensure!(!key.is_empty(), "the key in front of the = is missing");
    Ok((key.to_owned(), value.parse()?))
}

pub(super) fn run(client: &Client, output: Output, options: Options) -> Result<()> {
    let slug = &options.slug;
    let mut config = BTreeMap::new();
    for (key, Json(value)) in options.config {
        if config.contains_key(&key) {
            return Err(anyhow!("--config {key} is given twice; give it once"));
        }
        config.insert(key, value);
    }
    let wanted = NewTenant {
        slug,
        name: options.name.as_deref().unwrap_or(slug),
        plan: options.plan.as_deref(),
        region: options.region.as_deref(),
        admin_email: options.admin_email.as_deref(),
        config,
    };
    let could_not = || format!("could not create {slug}");
    let bounded = client.within(options.waiting.patience());
    let progress = Progress::new(&format!("creating {slug}"));
    let accepted = bounded.post(&path(["tenants"]), Some(&serde_json::to_string(&wanted)?)).with_context(could_not)?;
    let begun: TenantAndOperation = accepted.json("new tenant")?;
    if options.waiting.no_wait {
        drop(progress);
        let mut facts = begun.tenant.facts();
        facts.row(["operation", &begun.operation.id]);
        return output.show(accepted.text(), || facts.to_string());
    }

    let ended = operation::wait(&bounded, &begun.operation.id, &format!("tenant show {slug}"), |operation| {
        progress.say(&format!("creating {slug}: {}", operation.progress()));
    })
    .with_context(could_not)?;
    // Its own patience: what took long has been waited for already.
    let answer = client.get(&path(["tenants", &begun.tenant.id]))?;
    let tenant: Tenant = answer.json("tenant")?;
    let is_done = ended.operation.is_done();
    let made = options.key.filter(|_| is_done).map(|name| key::first(client, slug, &name)).transpose();
    drop(progress);

    let give_up = format!("Or give it up, which frees the slug: freehold tenant delete {slug}");
    let (made, failure) = match made {
        Ok(made) => (made, ended.operation.ensure_done(client, &could_not(), Some(&give_up))),
        Err(error) => (None, Err(error.context(format!("{slug} is {}, without a key", tenant.status)))),
    };
    if !is_done && !output.is_json {
        return failure;
    }
    let document = Document {
        tenant: answer.raw()?,
        operation: ended.raw,
        key: made.as_ref().map(|made| made.answer.raw()).transpose()?,
    };
    let mut facts = tenant.facts();
    if let Some(made) = &made {
        facts.row(["api key", made.api_key()]);
    }
    let printing = output.show_all(&document, || facts.to_string());
    match &made {
        Some(made) => made.printed(printing)?,
        None => printing?,
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_split_at_its_first_equals_sign() {
        let (key, Json(value)) = entry(r#"theme="a=b""#).unwrap();
        assert_eq!((key.as_str(), value.get()), ("theme", r#""a=b""#));
        assert!(entry("theme").unwrap_err().to_string().starts_with("write KEY=JSON"));
        assert!(entry("=1").is_err());
        assert!(entry("theme=blue").unwrap_err().to_string().contains(r#"'"blue"'"#));
    }
}
