//! `freehold tenant suspend`, `resume` and `restore`: done at once.

use anyhow::{Context as _, Result};

use super::Tenant;
use crate::client::{Client, path};
use crate::output::Output;

/// `turn` is the verb, in the API's path as on the command line.
pub(super) fn run(client: &Client, output: Output, tenant: &str, turn: &str) -> Result<()> {
    let answer = client.post(&path(["tenants", tenant, turn]), None);
    let answer = answer.with_context(|| format!("could not {turn} {tenant}"))?;
    let tenant: Tenant = answer.json("tenant")?;
    output.show(answer.text(), || format!("{} is {}", tenant.slug, tenant.status))
}
