//! `freehold audit export`: JSON lines, one for each checkpoint and each record.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::value::RawValue;

use crate::client::{Client, path, query};
use crate::output::{ClosedOutput, Output, note};
use crate::progress::Progress;

/// What is typed after `freehold audit export`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only this chain: `platform`, or a tenant's id; all unless told
    #[arg(long)]
    chain: Option<String>,
    /// Where to; stdout unless told. A file is there whole or not at all
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let Some(file) = &options.output else {
        let mut out = BufWriter::new(io::stdout().lock());
        write(client, options, &mut out)?;
        return flushed(&mut out);
    };
    let could_not = || format!("could not write {}", file.display());
    let beside = part_of(file);
    let mut out = BufWriter::new(File::create(&beside).with_context(could_not)?);
    let records = write(client, options, &mut out)?;
    let written = out.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
    written.and_then(|()| std::fs::rename(&beside, file)).with_context(could_not)?;
    note(
        "Verify it with `freehold audit verify`, and keep it: what its checkpoints vouch for cannot be altered unseen.",
    );
    output.done(&format!("{records} records are in {}", file.display()))
}

fn part_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// Checkpoints first: whatever they vouch for is among the records that are asked for after them.
fn write(client: &Client, options: &Options, out: &mut impl Write) -> Result<u64> {
    let chain = options.chain.as_deref();
    let progress = Progress::new("exporting the audit trail");
    let (checkpoints, records) = (path(["audit", "checkpoints"]), path(["audit"]));
    client.each_page(&(checkpoints + &query([("chain", chain)])), None, |page| lines(out, "checkpoint", &page))?;
    let mut count = 0;
    client.each_page(&(records + &query([("order", Some("chain")), ("chain", chain)])), None, |page| {
        count += page.len() as u64;
        progress.say(&format!("{count} records"));
        lines(out, "record", &page)
    })?;
    Ok(count)
}

/// The items as they came, to the byte: their digests go over bytes.
fn lines(out: &mut impl Write, of: &str, items: &[Box<RawValue>]) -> Result<()> {
    for item in items {
        said(writeln!(out, "{{\"{of}\":{}}}", item.get()))?;
    }
    Ok(())
}

fn flushed(out: &mut impl Write) -> Result<()> {
    said(out.flush())
}

fn said(written: io::Result<()>) -> Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ClosedOutput.into()),
        written => written.context("could not write the trail"),
    }
}
