//! `freehold tenant rotate --all`: many at a time, none left out for another's failure.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use serde::Serialize;

use super::{Document, Options, rotate};
use crate::client::{Client, Lost, Refusal};
use crate::output::{Output, plain};
use crate::progress::Progress;
use crate::table::Table;
use crate::tenant::{Tenant, list};

/// More would only queue at the control plane, whose runner takes a few at a time.
const AT_ONCE: usize = 8;

/// What is told of each tenant.
#[derive(Serialize)]
#[serde(untagged)]
enum Told {
    Ended(Document),
    Failed { slug: String, error: String },
}

/// How one tenant fared, in the order of the list.
struct Outcome {
    index: usize,
    slug: String,
    result: String,
    is_done: bool,
    told: Told,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let progress = Progress::new("listing the tenants");
    let mut tenants = list::of_status(client, "active")?;
    tenants.extend(list::of_status(client, "suspended")?);
    let next = AtomicUsize::new(0);
    let is_hopeless = AtomicBool::new(false);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(tenants.len()) {
            scope.spawn(|| {
                while !is_hopeless.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(tenant) = tenants.get(index) else { break };
                    let (outcome, is_last) = one(client, index, tenant, options);
                    is_hopeless.fetch_or(is_last, Ordering::Relaxed);
                    let mut outcomes = outcomes.lock().unwrap_or_else(PoisonError::into_inner);
                    outcomes.push(outcome);
                    progress.say(&text(&outcomes, tenants.len(), options));
                }
            });
        }
    });
    drop(progress);
    let mut outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    outcomes.sort_by_key(|outcome| outcome.index);

    let table = table(&outcomes);
    let (done, all) = (outcomes.iter().filter(|outcome| outcome.is_done).count(), tenants.len());
    let summary = text(&outcomes, all, options);
    let told: Vec<Told> = outcomes.into_iter().map(|outcome| outcome.told).collect();
    output.show_all(&told, || if done == 0 { summary.clone() } else { format!("{table}{summary}") })?;
    if done < all {
        bail!("{} of {all} tenants were not rotated; mend what is said of them, and rotate them again", all - done);
    }
    Ok(())
}

/// Rotates one, and says whether the others need not be tried.
fn one(client: &Client, index: usize, tenant: &Tenant, options: &Options) -> (Outcome, bool) {
    let slug = tenant.slug.clone();
    // By its id: it may be renamed before its turn comes.
    match rotate(client, &tenant.id, options, |_| {}) {
        Ok(rotation) => {
            let is_done = options.waiting.no_wait || rotation.operation.is_done();
            let said = [rotation.operation.error.as_deref(), rotation.operation.note.as_deref()];
            let said: Vec<&str> = said.into_iter().flatten().collect();
            let result = format!("{} {}", rotation.operation.state, said.join(" "));
            (Outcome { index, slug, result, is_done, told: Told::Ended(rotation.document) }, false)
        }
        Err(error) => {
            let is_last = error.is::<Lost>() || error.downcast_ref::<Refusal>().is_some_and(Refusal::is_of_the_token);
            let error = plain(&format!("{error:#}"));
            let told = Told::Failed { slug: slug.clone(), error: error.clone() };
            (Outcome { index, slug, result: error, is_done: false, told }, is_last)
        }
    }
}

fn text(outcomes: &[Outcome], all: usize, options: &Options) -> String {
    let done = outcomes.iter().filter(|outcome| outcome.is_done).count();
    let verb = if options.waiting.no_wait { "being rotated" } else { "rotated" };
    match outcomes.len() - done {
        0 => format!("{done} of {all} tenants are {verb}"),
        failed => format!("{done} of {all} tenants are {verb}, {failed} failed"),
    }
}

fn table(outcomes: &[Outcome]) -> Table {
    let mut table = Table::of(["SLUG", "ROTATION"]);
    for outcome in outcomes {
        table.row([&outcome.slug, &outcome.result]);
    }
    table
}
