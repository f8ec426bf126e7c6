//! `freehold audit verify`: by the file, the public keys and nothing else.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use tenancy::audit::{Checkpoint, PublicKey, Record, Verdict, Verifier};

use crate::output::{Output, note};

/// What is typed after `freehold audit verify`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What `freehold audit export` wrote
    file: PathBuf,
    /// A public key, or a file of them, as `freehold audit key` printed it when you trusted the control plane; may be repeated
    #[arg(long = "public-key", value_name = "KEY or FILE", required = true)]
    keys: Vec<String>,
    /// An earlier export: nothing that its checkpoints vouch for may be missing or another
    #[arg(long, value_name = "FILE")]
    held: Vec<PathBuf>,
}

/// A line of an export.
#[derive(Deserialize)]
struct Line {
    record: Option<Record>,
    checkpoint: Option<Checkpoint>,
}

#[derive(Serialize)]
struct Report {
    chains: usize,
    records: u64,
    unsigned: u64,
}

pub(super) fn run(output: Output, options: &Options) -> Result<()> {
    let verdict = verify(options)?;
    let Verdict { chains, records, unsigned } = verdict;
    if unsigned > 0 {
        note(&format!(
            "{unsigned} of them are newer than the last checkpoint of their chain: they fit together, and the next checkpoint \
             vouches for them."
        ));
    }
    output.show_all(&Report { chains, records, unsigned }, || {
        format!("{records} records in {chains} chains are what they were")
    })
}

fn verify(options: &Options) -> Result<Verdict> {
    let mut verifier = Verifier::new(keys(&options.keys)?);
    for held in &options.held {
        read(held, |line| line.checkpoint.map_or(Ok(()), |it| verifier.trust(it).map_err(Into::into)))?;
    }
    let mut count = 0_u64;
    read(&options.file, |line| {
        match line {
            Line { record: Some(record), checkpoint: None } => verifier.take(&record),
            Line { record: None, checkpoint: Some(checkpoint) } => verifier.trust(checkpoint)?,
            _ => return Err(anyhow!("is neither a record nor a checkpoint")),
        }
        count += 1;
        Ok(())
    })?;
    if count == 0 {
        bail!("{} is empty; write it with `freehold audit export`", options.file.display());
    }
    Ok(verifier.judge()?)
}

fn read(file: &Path, mut take: impl FnMut(Line) -> Result<()>) -> Result<()> {
    let opened = File::open(file).with_context(|| format!("could not open {}", file.display()))?;
    for (at, line) in BufReader::new(opened).lines().enumerate() {
        let here = || format!("{}, line {}", file.display(), at + 1);
        let line = line.with_context(here)?;
        let line: Line =
            serde_json::from_str(&line).context("is not as it was exported: it was changed").with_context(here)?;
        take(line).with_context(here)?;
    }
    Ok(())
}

/// Keys as they were typed, or the lines of files.
fn keys(typed: &[String]) -> Result<Vec<PublicKey>> {
    let mut keys = Vec::new();
    for text in typed {
        if let Ok(key) = text.parse() {
            keys.push(key);
            continue;
        }
        let lines = std::fs::read_to_string(text).with_context(|| {
            format!("`{text}` is no public key, and no file of them; `freehold audit key` prints them")
        })?;
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            keys.push(line.parse().with_context(|| text.clone())?);
        }
    }
    Ok(keys)
}
