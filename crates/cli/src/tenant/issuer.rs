//! `freehold tenant issuer`: who else may say who calls, such as an enterprise's own OpenID Connect provider.

use anyhow::{Context as _, Result};
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use serde::{Deserialize, Serialize};

use super::Named;
use crate::client::{Client, path};
use crate::output::{Output, moment};
use crate::table::Table;

/// What is typed after `freehold tenant issuer`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the issuers whose tokens speak for a tenant
    List(Named),
    /// Show one of them
    Show(One),
    /// Trust an issuer, or describe one otherwise: all of it anew
    ///
    /// Its tokens speak for this tenant alone, whatever they claim.
    Set {
        #[command(flatten)]
        one: One,
        #[command(flatten)]
        described: Described,
    },
    /// Trust an issuer no longer: no data plane takes its tokens any more
    Remove(One),
}

/// One issuer of one tenant.
#[derive(clap::Args)]
pub(crate) struct One {
    #[command(flatten)]
    named: Named,
    /// What the issuer is called here: a-z, 0-9, - and _
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    name: String,
}

/// What is known of an issuer.
#[derive(clap::Args, Serialize)]
pub(crate) struct Described {
    /// What its tokens say in `iss`, letter by letter
    #[arg(long)]
    issuer: String,
    /// Where it shows its public keys (JWKS)
    #[arg(long, value_name = "URL")]
    jwks_url: String,
    /// Its tokens are for us if their `aud` says this
    #[arg(long)]
    audience: String,
    /// The most that its tokens may do; repeat it
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<String>,
    /// The claim that says what a token may do; `scope` unless told
    #[arg(long, value_name = "CLAIM")]
    #[serde(skip_serializing_if = "Option::is_none")]
    scope_claim: Option<String>,
    /// What a token may do that has no such claim; repeat it. Nothing unless told
    #[arg(long = "default-scope", value_name = "SCOPE")]
    default_scopes: Vec<String>,
}

/// An issuer, as far as we show it.
#[derive(Deserialize)]
struct Issuer {
    name: String,
    #[serde(rename = "issuer")]
    says: String,
    jwks_url: String,
    audience: String,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    scope_claim: String,
    #[serde(default)]
    default_scopes: Vec<String>,
    #[serde(default)]
    created_at: String,
}

pub(super) fn run(client: &Client, output: Output, command: Command) -> Result<()> {
    match command {
        Command::List(Named { tenant }) => {
            let items = client.list(&path(["tenants", &tenant, "issuers"]), None)?;
            if output.is_json {
                return output.show_all(&items, String::new);
            }
            let issuers: Result<Vec<Issuer>, _> = items.iter().map(|item| serde_json::from_str(item.get())).collect();
            let issuers = issuers.context("the server answered a list of something else than issuers; check --url")?;
            output.show("", || table(&issuers).to_string())
        }
        Command::Show(one) => {
            let answer = client.get(&one.path())?;
            let issuer: Issuer = answer.json("issuer")?;
            output.show(answer.text(), || issuer.facts().to_string())
        }
        Command::Set { one, described } => {
            let answer = client.put(&one.path(), &serde_json::to_string(&described)?);
            let answer = answer.with_context(|| format!("could not set {} of {}", one.name, one.named.tenant))?;
            let issuer: Issuer = answer.json("issuer")?;
            output.show(answer.text(), || issuer.facts().to_string())
        }
        Command::Remove(one) => {
            let (name, tenant) = (&one.name, &one.named.tenant);
            let answer = client.delete(&one.path());
            answer.with_context(|| format!("could not remove {name} of {tenant}"))?;
            output.done(&format!("{name} is trusted no longer for {tenant}"))
        }
    }
}

impl One {
    fn path(&self) -> String {
        path(["tenants", &self.named.tenant, "issuers", &self.name])
    }
}

impl Issuer {
    fn facts(&self) -> Table {
        let mut table = Table::facts();
        table.row(["name", &self.name]);
        table.row(["issuer", &self.says]);
        table.row(["keys", &self.jwks_url]);
        table.row(["audience", &self.audience]);
        table.row(["scopes", &self.scopes.join(", ")]);
        table.row(["scope claim", &self.scope_claim]);
        table.row(["scopes without it", &self.default_scopes.join(", ")]);
        table.row(["created", &moment(&self.created_at)]);
        table
    }
}

fn table(issuers: &[Issuer]) -> Table {
    let mut table = Table::of(["NAME", "ISSUER", "KEYS", "AUDIENCE", "SCOPES"]);
    for issuer in issuers {
        table.row([&issuer.name, &issuer.says, &issuer.jwks_url, &issuer.audience, &issuer.scopes.join(",")]);
    }
    table
}
