//! `freehold tenant domain`: custom hosts. One leads to its tenant once a DNS record has proven whose it is.

use anyhow::{Context as _, Result};
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;
use serde_json::json;

use super::Named;
use crate::client::{Client, path};
use crate::output::{Output, moment};
use crate::table::{Table, or_nothing};

/// What is typed after `freehold tenant domain`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List a tenant's custom hosts, and the DNS records that prove those that are not proven yet
    #[command(visible_alias = "show")]
    List(Named),
    /// Claim a custom host; the answer says which DNS record proves it
    #[command(visible_alias = "set")]
    Add(Host),
    /// Look for the DNS record of a claimed host; once it is seen, the host leads to the tenant
    Prove(Host),
    /// Take a custom host away, proven or not
    Remove(Host),
}

/// One host of one tenant.
#[derive(clap::Args)]
pub(crate) struct Host {
    #[command(flatten)]
    named: Named,
    /// A host name of two labels or more, without a port, as pets.example.com
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    host: String,
}

/// A custom host, as far as we show it.
#[derive(Deserialize)]
struct Domain {
    host: String,
    is_proven: bool,
    proof: Option<Proof>,
    #[serde(default)]
    created_at: String,
}

/// A TXT record.
#[derive(Deserialize)]
struct Proof {
    name: String,
    value: String,
}

pub(super) fn run(client: &Client, output: Output, command: Command) -> Result<()> {
    match command {
        Command::List(Named { tenant }) => {
            let items = client.list(&path(["tenants", &tenant, "domains"]), None)?;
            if output.is_json {
                return output.show_all(&items, String::new);
            }
            let domains: Result<Vec<Domain>, _> = items.iter().map(|item| serde_json::from_str(item.get())).collect();
            let domains = domains.context("the server answered a list of something else than hosts; check --url")?;
            output.show("", || table(&domains).to_string())
        }
        Command::Add(Host { named: Named { tenant }, host }) => {
            let body = json!({ "host": host }).to_string();
            let answer = client.post(&path(["tenants", &tenant, "domains"]), Some(&body));
            let answer = answer.with_context(|| format!("could not add {host} to {tenant}"))?;
            let domain: Domain = answer.json("custom host")?;
            output.show(answer.text(), || domain.next(&tenant))
        }
        Command::Prove(one) => {
            let Host { named: Named { tenant }, host } = &one;
            let answer = client.post(&path(["tenants", tenant, "domains", host, "prove"]), None);
            let answer = answer.with_context(|| format!("could not prove {host} of {tenant}"))?;
            let domain: Domain = answer.json("custom host")?;
            output.show(answer.text(), || domain.next(tenant))
        }
        Command::Remove(Host { named: Named { tenant }, host }) => {
            let answer = client.delete(&path(["tenants", &tenant, "domains", &host]));
            answer.with_context(|| format!("could not remove {host} of {tenant}"))?;
            output.done(&format!("{host} leads to {tenant} no longer"))
        }
    }
}

impl Domain {
    /// What it is, and what is to be done for it.
    fn next(&self, tenant: &str) -> String {
        let host = &self.host;
        match &self.proof {
            Some(Proof { name, value }) if !self.is_proven => format!(
                "Write this record into the DNS zone of {host}:\n  {name} TXT \"{value}\"\n\
                 Once your name servers tell it: freehold tenant domain prove {tenant} {host}"
            ),
            _ => format!("{host} leads to {tenant}"),
        }
    }
}

fn table(domains: &[Domain]) -> Table {
    let mut table = Table::of(["HOST", "PROVEN", "TXT RECORD", "ITS TEXT", "CREATED"]);
    for domain in domains {
        let is_proven = if domain.is_proven { "yes" } else { "no" };
        let [name, value] = [0, 1].map(|at| {
            or_nothing(domain.proof.as_ref().map(|proof| if at == 0 { &*proof.name } else { &*proof.value }))
        });
        table.row([&domain.host, is_proven, name, value, &moment(&domain.created_at)]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_claims_a_host_is_told_what_proves_it() {
        let claimed = r#"{"host":"pets.acme.test","is_proven":false,"created_at":"2026-11-24T14:34:39.5Z",
            "proof":{"name":"_freehold.pets.acme.test","value":"freehold-domain=k5rn"}}"#;
        let claimed: Domain = serde_json::from_str(claimed).unwrap();
        insta::assert_snapshot!(claimed.next("acme"), @r#"
        Write this record into the DNS zone of pets.acme.test:
          _freehold.pets.acme.test TXT "freehold-domain=k5rn"
        Once your name servers tell it: freehold tenant domain prove acme pets.acme.test
        "#);
        let proven = Domain { is_proven: true, proof: None, ..claimed };
        assert_eq!(proven.next("acme"), "pets.acme.test leads to acme");
        insta::assert_snapshot!(table(&[proven]).to_string(), @r"
        HOST            PROVEN  TXT RECORD  ITS TEXT  CREATED
        pets.acme.test  yes     -           -         2026-11-24T14:34:39Z
        ");
    }
}
