//! `freehold tenant delete`: asks first, and says until when it can be undone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result, bail};
use clap::builder::NonEmptyStringValueParser;

use super::{Tenant, TenantAndOperation};
use crate::client::{Client, path};
use crate::output::{Output, moment, plain};

/// What is typed after `freehold tenant delete`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Its slug or id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    tenant: String,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let mut name = options.tenant.clone();
    if !options.yes {
        if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
            bail!("nobody is here to be asked; say --yes to delete {name}");
        }
        let tenant: Tenant = client.get(&path(["tenants", &name]))?.json("tenant")?;
        confirm(&tenant)?;
        // What was confirmed: its slug may be another's by now.
        name = tenant.id;
    }
    let answer = client.delete(&path(["tenants", &name]));
    let answer = answer.with_context(|| format!("could not delete {}", options.tenant))?;
    let begun: TenantAndOperation = answer.json("deleted tenant")?;
    output.show(answer.text(), || {
        let slug = &begun.tenant.slug;
        match &begun.tenant.delete_after {
            Some(end) => format!(
                "{slug} is {}. Until {} it can be restored: freehold tenant restore {slug}\n\
                 Then its database and all of its data go.",
                begun.tenant.status,
                moment(end)
            ),
            None => format!("{slug} is {}. It had no data.", begun.tenant.status),
        }
    })
}

fn confirm(tenant: &Tenant) -> Result<()> {
    let slug = &tenant.slug;
    let question = format!(
        "{slug} ({}, {}) will be refused at once, and its data goes when the grace period ends.\n\
         Type {slug} to delete it: ",
        plain(&tenant.name),
        tenant.status
    );
    let mut err = io::stderr().lock();
    err.write_all(question.as_bytes()).and_then(|()| err.flush()).context("could not ask on stderr; say --yes")?;
    let mut typed = String::new();
    io::stdin().lock().read_line(&mut typed).context("could not read what was typed; say --yes")?;
    if typed.trim() != slug {
        bail!("that is not {slug}; nothing was deleted");
    }
    Ok(())
}
