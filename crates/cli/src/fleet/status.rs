//! `freehold fleet status`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::rollout::{Page, Rollout, Target};
use crate::client::{Client, path, query};
use crate::output::{Output, moment};
use crate::table::{Table, or_nothing};

/// Rollouts that are shown.
const RECENT: &str = "5";
/// Failures that are shown.
const FAILURES: usize = 20;

/// What is typed after `freehold fleet status`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// One rollout, with its waves and what failed
    #[arg(value_name = "ROLLOUT", value_parser = super::rollout_id)]
    rollout: Option<String>,
}

#[derive(Deserialize)]
struct Fleet {
    version: u32,
    needed: u32,
    migrations: Vec<String>,
    tenants: BTreeMap<u32, u64>,
}

/// Both as one document.
#[derive(Serialize)]
struct Whole {
    fleet: Box<RawValue>,
    rollouts: Box<RawValue>,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    if let Some(id) = &options.rollout {
        return show(client, output, id);
    }
    let fleet = client.get(&path(["fleet"]))?;
    let rollouts = client.get(&(path(["rollouts"]) + &query([("limit", Some(RECENT))])))?;
    let (known, recent): (Fleet, Page) = (fleet.json("fleet")?, rollouts.json("list of rollouts")?);
    let whole = Whole { fleet: fleet.raw()?, rollouts: rollouts.raw()? };
    output.show_all(&whole, || text(&known, &recent.items))
}

fn text(fleet: &Fleet, rollouts: &[Rollout]) -> String {
    let contained = fleet.migrations.len();
    let mut text = format!(
        "New tenants get version {}. The product needs version {} at least; the control plane contains {contained}.\n\n",
        fleet.version, fleet.needed
    );
    let mut versions = Table::of(["VERSION", "TENANTS", "LAST MIGRATION", "SERVED"]);
    for (version, tenants) in &fleet.tenants {
        let last = version.checked_sub(1).and_then(|at| fleet.migrations.get(at as usize));
        let served = if *version < fleet.needed { "no: behind" } else { "yes" };
        versions.row([&version.to_string(), &tenants.to_string(), or_nothing(last.map(String::as_str)), served]);
    }
    // Writing to a string cannot fail.
    let _ = write!(text, "{versions}");
    if rollouts.is_empty() {
        return text;
    }
    let mut table = Table::of(["ROLLOUT", "TO", "STATE", "DONE", "FAILED", "LEFT", "ORDERED", "BY"]);
    for it in rollouts {
        table.row([
            &it.id,
            &it.version.to_string(),
            if it.held { "held" } else { &it.state },
            &it.counts.done.to_string(),
            &it.counts.failed.to_string(),
            &(it.counts.pending + it.counts.running).to_string(),
            &moment(&it.created_at),
            &it.requested_by,
        ]);
    }
    let _ = write!(text, "\n{table}");
    text
}

fn show(client: &Client, output: Output, id: &str) -> Result<()> {
    let answer = client.get(&path(["rollouts", id]))?;
    let rollout: Rollout = answer.json("rollout")?;
    let failed = failures(client, id, Some(FAILURES))?;
    output.show(answer.text(), || {
        let mut text = rollout.facts().to_string();
        if !rollout.waves.is_empty() {
            let _ = write!(text, "\n{}", rollout.wave_table());
        }
        if !failed.is_empty() {
            let mut table = Table::of(["FAILED", "WHY"]);
            for target in &failed {
                table.row([target.name(), or_nothing(target.error.as_deref())]);
            }
            let _ = write!(text, "\n{table}");
        }
        text
    })
}

/// Targets that failed, so many at most, or all of them.
pub(super) fn failures(client: &Client, id: &str, at_most: Option<usize>) -> Result<Vec<Target>> {
    let failed = path(["rollouts", id, "targets"]) + &query([("state", Some("failed"))]);
    let failed = client.list(&failed, at_most)?;
    Ok(failed.iter().filter_map(|target| serde_json::from_str(target.get()).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fleet_is_shown_with_its_rollouts() {
        let fleet = r#"{"version":2,"needed":2,"migrations":["m1","m2","m3"],"tenants":{"1":3,"2":997}}"#;
        let rollouts = r#"{"items":[{"id":"01a","version":2,"state":"failed","note":"x","counts":{"done":997,"failed":3},
            "requested_by":"ada","created_at":"2026-11-25T09:00:00.123Z"}],"next_cursor":null}"#;
        let rollouts: Page = serde_json::from_str(rollouts).unwrap();
        insta::assert_snapshot!(text(&serde_json::from_str(fleet).unwrap(), &rollouts.items), @r"
        New tenants get version 2. The product needs version 2 at least; the control plane contains 3.

        VERSION  TENANTS  LAST MIGRATION  SERVED
        1        3        m1              no: behind
        2        997      m2              yes

        ROLLOUT  TO  STATE   DONE  FAILED  LEFT  ORDERED               BY
        01a      2   failed  997   3       0     2026-11-25T09:00:00Z  ada
        ");
    }
}
