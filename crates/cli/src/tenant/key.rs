//! `freehold tenant key`: a tenant's API keys. A new one's secret is printed once, and nobody can show it again.

use anyhow::{Context as _, Result};
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use serde::{Deserialize, Serialize};

use super::Named;
use crate::client::{Answer, Client, path};
use crate::output::{Output, moment};
use crate::table::{Table, or_nothing};

/// What is typed after `freehold tenant key`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Create an API key, and print it: this once
    Create(Options),
    /// List a tenant's API keys, without their secrets
    List(Named),
    /// Revoke an API key: no data plane takes it any more
    Revoke {
        #[command(flatten)]
        named: Named,
        /// The key's id, as the list has it
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        key: String,
    },
}

/// What is typed after `freehold tenant key create`.
#[derive(clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    named: Named,
    /// What it is for, for people
    #[arg(long)]
    name: Option<String>,
    /// What it allows; repeat it. All of the product's scopes unless told
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// From when it no longer counts, as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
}

#[derive(Serialize)]
struct NewKey<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    scopes: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<&'a str>,
}

/// A key, as far as we show it. The secret has no place in it.
#[derive(Debug, Deserialize)]
struct Key {
    id: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    scopes: Vec<String>,
    expires_at: Option<String>,
    #[serde(default)]
    created_at: String,
}

/// The secret of a key that was just made.
#[derive(Deserialize)]
struct Secret {
    id: String,
    api_key: String,
}

/// A key that was just made, to be printed once.
pub(super) struct Made {
    pub(super) answer: Answer,
    secret: Secret,
    tenant: String,
}

pub(super) fn run(client: &Client, output: Output, command: Command) -> Result<()> {
    match command {
        Command::Create(options) => {
            let tenant = &options.named.tenant;
            let key = NewKey {
                name: options.name.as_deref(),
                scopes: &options.scopes,
                expires_at: options.expires_at.as_deref(),
            };
            let made = make(client, tenant, &key)?;
            made.printed(output.show(made.answer.text(), || made.secret.api_key.clone()))
        }
        Command::List(Named { tenant }) => {
            let items = client.list(&path(["tenants", &tenant, "keys"]), None)?;
            if output.is_json {
                return output.show_all(&items, String::new);
            }
            let keys: Result<Vec<Key>, _> = items.iter().map(|item| serde_json::from_str(item.get())).collect();
            let keys = keys.context("the server answered a list of something else than keys; check --url")?;
            output.show("", || table(&keys).to_string())
        }
        Command::Revoke { named: Named { tenant }, key } => {
            let answer = client.delete(&path(["tenants", &tenant, "keys", &key]));
            answer.with_context(|| format!("could not revoke {key} of {tenant}"))?;
            output.done(&format!("{key} of {tenant} is revoked"))
        }
    }
}

/// A tenant's first key, with all scopes.
pub(super) fn first(client: &Client, tenant: &str, name: &str) -> Result<Made> {
    make(client, tenant, &NewKey { name: Some(name), scopes: &[], expires_at: None })
}

fn make(client: &Client, tenant: &str, key: &NewKey<'_>) -> Result<Made> {
    let answer = client.post(&path(["tenants", tenant, "keys"]), Some(&serde_json::to_string(key)?));
    let answer = answer.with_context(|| format!("could not create a key for {tenant}"))?;
    let secret = answer.json("new key")?;
    Ok(Made { answer, secret, tenant: tenant.to_owned() })
}

impl Made {
    pub(super) fn api_key(&self) -> &str {
        &self.secret.api_key
    }

    /// A key that nobody could read is told, for nobody will ever know it.
    pub(super) fn printed(&self, printing: Result<()>) -> Result<()> {
        let (tenant, id) = (&self.tenant, &self.secret.id);
        printing.map_err(|error| {
            anyhow::anyhow!(
                "the key was created, and could not be printed: {error:#}\n  \
                 Revoke it, for it cannot be shown again: freehold tenant key revoke {tenant} {id}"
            )
        })
    }
}

fn table(keys: &[Key]) -> Table {
    let mut table = Table::of(["ID", "NAME", "SCOPES", "EXPIRES", "CREATED"]);
    for key in keys {
        let expires = key.expires_at.as_deref().map(moment);
        let (scopes, created) = (key.scopes.join(","), moment(&key.created_at));
        table.row([&key.id, &key.name, &scopes, or_nothing(expires.as_deref()), &created]);
    }
    table
}
