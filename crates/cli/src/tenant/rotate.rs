//! `freehold tenant rotate`: another login role with a new password, for one tenant or for all.

mod all;

use anyhow::{Context as _, Result};
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Tenant, TenantAndOperation, Waiting};
use crate::client::{Client, path, query};
use crate::operation::{self, Operation};
use crate::output::Output;
use crate::progress::Progress;

/// What is typed after `freehold tenant rotate`.
#[derive(clap::Args)]
#[command(override_usage = "freehold tenant rotate [OPTIONS] <TENANT | --all>")]
pub(crate) struct Options {
    /// Its slug or id
    #[arg(required_unless_present = "all", conflicts_with = "all", value_parser = NonEmptyStringValueParser::new())]
    tenant: Option<String>,
    /// Every active or suspended tenant, eight at a time; --timeout is for each
    #[arg(long)]
    all: bool,
    /// Wait for no data plane: one that has not taken the new URL yet is cut off, and named in the note
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// A rotation, as it is told.
#[derive(Serialize)]
struct Document {
    tenant: Box<RawValue>,
    operation: Box<RawValue>,
}

/// How one went.
struct Rotation {
    document: Document,
    tenant: Tenant,
    operation: Operation,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let Some(name) = &options.tenant else { return all::run(client, output, options) };
    let progress = Progress::new(&format!("rotating {name}"));
    let rotation = rotate(client, name, options, |operation| {
        progress.say(&format!("rotating {name}: {}", operation.progress()));
    });
    drop(progress);
    let could_not = format!("could not rotate {name}");
    let Rotation { document, tenant, operation } = rotation.context(could_not.clone())?;
    if options.waiting.no_wait {
        return output.show_all(&document, || format!("{} is being rotated: operation {}", tenant.slug, operation.id));
    }
    if operation.is_done() || output.is_json {
        output.show_all(&document, || {
            let note = operation.note.as_ref().map(|note| format!("\n{note}")).unwrap_or_default();
            format!("{} is rotated: its database URL is of generation {}{note}", tenant.slug, tenant.generation)
        })?;
    }
    operation.ensure_done(client, &could_not, None)
}

/// Orders one and, if that is wanted, waits until it ended.
fn rotate(client: &Client, name: &str, options: &Options, look: impl FnMut(&Operation)) -> Result<Rotation> {
    let bounded = client.within(options.waiting.patience());
    let force = options.force.then_some("true");
    let accepted = bounded.post(&(path(["tenants", name, "rotate-credentials"]) + &query([("force", force)])), None)?;
    let TenantAndOperation { tenant, operation } = accepted.json("rotation")?;
    if options.waiting.no_wait {
        let parts: Parts = accepted.json("rotation")?;
        return Ok(Rotation {
            document: Document { tenant: parts.tenant, operation: parts.operation },
            tenant,
            operation,
        });
    }
    let ended = operation::wait(&bounded, &operation.id, &format!("tenant show {name}"), look)?;
    let answer = client.get(&path(["tenants", &tenant.id]))?;
    let document = Document { tenant: answer.raw()?, operation: ended.raw };
    Ok(Rotation { document, tenant: answer.json("tenant")?, operation: ended.operation })
}

/// An answer's parts as they came.
#[derive(serde::Deserialize)]
struct Parts {
    tenant: Box<RawValue>,
    operation: Box<RawValue>,
}
