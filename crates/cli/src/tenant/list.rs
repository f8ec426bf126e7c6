//! `freehold tenant list`.

use anyhow::{Context as _, Result};
use serde_json::value::RawValue;

use super::Tenant;
use crate::client::{Client, path, query};
use crate::output::{Output, note};
use crate::table::{Table, or_nothing};

/// What is typed after `freehold tenant list`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// In this status: provisioning, active, suspended, deleting, deleted or failed
    #[arg(long)]
    status: Option<String>,
    /// On this plan
    #[arg(long)]
    plan: Option<String>,
    /// That demand this region
    #[arg(long)]
    region: Option<String>,
    /// On this server
    #[arg(long)]
    server: Option<String>,
    /// With this text in slug or name
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// The first N; all unless told
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let filter = query([
        ("status", options.status.as_deref()),
        ("plan", options.plan.as_deref()),
        ("region", options.region.as_deref()),
        ("server", options.server.as_deref()),
        ("q", options.q.as_deref()),
    ]);
    let items = client.list(&(path(["tenants"]) + &filter), options.limit.and_then(|limit| limit.try_into().ok()))?;
    if output.is_json {
        return output.show_all(&items, String::new);
    }
    let tenants = tenants(&items)?;
    if tenants.is_empty() {
        note(if filter.is_empty() {
            "There is no tenant yet: freehold tenant create SLUG"
        } else {
            "No tenant is so."
        });
    }
    output.show("", || table(&tenants).to_string())
}

/// Tenants that match what comes behind the path, all of them.
pub(super) fn of_status(client: &Client, status: &str) -> Result<Vec<Tenant>> {
    tenants(&client.list(&(path(["tenants"]) + &query([("status", Some(status))])), None)?)
}

fn tenants(items: &[Box<RawValue>]) -> Result<Vec<Tenant>> {
    let tenants = items.iter().map(|item| serde_json::from_str(item.get())).collect::<Result<_, _>>();
    tenants.context("the server answered a list of something else than tenants; check --url")
}

fn table(tenants: &[Tenant]) -> Table {
    let mut table = Table::of(["SLUG", "NAME", "STATUS", "PLAN", "REGION", "SERVER", "ID"]);
    for it in tenants {
        let (region, server) = (or_nothing(it.region.as_deref()), or_nothing(it.server.as_deref()));
        table.row([&it.slug, &it.name, &it.status, &it.plan, region, server, &it.id]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_are_shown_in_columns_also_those_of_another_version() {
        let items = [
            r#"{"id":"01a2","slug":"acme","name":"Acme","status":"active","plan":"premium","region":null,"server":"local",
                "schema_version":1,"generation":1,"created_at":"2026-11-24T14:34:39.584503Z","updated_at":"x","new":[]}"#,
            r#"{"id":"01a3","slug":"initech","status":"provisioning"}"#,
        ];
        let items: Vec<_> = items.into_iter().map(|item| RawValue::from_string(item.to_owned()).unwrap()).collect();
        insta::assert_snapshot!(table(&tenants(&items).unwrap()).to_string(), @r"
        SLUG     NAME  STATUS        PLAN     REGION  SERVER  ID
        acme     Acme  active        premium  -       local   01a2
        initech  -     provisioning  -        -       -       01a3
        ");
        assert!(tenants(&[RawValue::from_string("{}".to_owned()).unwrap()]).is_err());
    }
}
