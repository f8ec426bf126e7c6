//! `freehold tenant show`.

use anyhow::{Context as _, Result};

use super::Tenant;
use crate::client::{Client, path, query};
use crate::operation::Operation;
use crate::output::Output;

pub(super) fn run(client: &Client, output: Output, tenant: &str) -> Result<()> {
    let answer = client.get(&path(["tenants", tenant]))?;
    if output.is_json {
        return output.show(answer.text(), String::new);
    }
    let tenant: Tenant = answer.json("tenant")?;
    let mut facts = tenant.facts();
    if let Some(operation) = last(client, &tenant.id)? {
        facts.row(["last operation", &format!("{} {}: {}", operation.kind, operation.id, operation.progress())]);
        for (what, text) in [("its error", &operation.error), ("its note", &operation.note)] {
            if let Some(text) = text {
                facts.row([what, text]);
            }
        }
    }
    output.show("", || facts.to_string())
}

/// What was last done with the tenant, with its steps.
fn last(client: &Client, tenant: &str) -> Result<Option<Operation>> {
    let newest = client.list(&(path(["operations"]) + &query([("tenant", Some(tenant))])), Some(1))?;
    let Some(newest) = newest.first() else { return Ok(None) };
    let newest: Operation = serde_json::from_str(newest.get()).context("the server answered what is no operation")?;
    client.get(&path(["operations", &newest.id]))?.json("operation").map(Some)
}
