//! `freehold tenant doctor`: what in the registry and on the servers does not fit together.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::client::{Client, path};
use crate::output::{Output, note};
use crate::progress::Progress;
use crate::table::{Table, or_nothing};

/// How long a page may wait for what it mends. What takes longer goes on, and is told of.
const WAIT: Duration = Duration::from_secs(20);

/// What is typed after `freehold tenant doctor`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Mend what can be mended without losing anything
    #[arg(long)]
    fix: bool,
}

#[derive(Serialize)]
struct Order<'a> {
    fix: bool,
    cursor: Option<&'a str>,
}

#[derive(Deserialize)]
struct Page {
    findings: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
    checked: Checked,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Checked {
    servers: u64,
    databases: u64,
    tenants: u64,
}

#[derive(Deserialize)]
struct Finding {
    kind: String,
    server: Option<String>,
    database: Option<String>,
    tenant: Option<String>,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    remedy: String,
    #[serde(default)]
    is_fixed: bool,
}

/// All pages as one.
#[derive(Serialize)]
struct Report {
    findings: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
    checked: Checked,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let report = examine(client, options.fix)?;
    let findings: Result<Vec<Finding>, _> = report.findings.iter().map(|it| serde_json::from_str(it.get())).collect();
    let findings = findings.context("the server answered what is no finding; check --url")?;
    let looked_at = looked_at(report.checked);
    if output.is_json {
        output.show_all(&report, String::new)?;
    } else if findings.is_empty() {
        output.done(&format!("All is well: {looked_at} looked at."))?;
    } else {
        note(&format!("{looked_at} looked at."));
        output.show("", || table(&findings).to_string())?;
    }
    match findings.iter().filter(|finding| !finding.is_fixed).count() {
        0 => Ok(()),
        left if options.fix => bail!("left to do: {left} of {}. The last column says what", findings.len()),
        left => bail!("left to do: {left}. `freehold tenant doctor --fix` does what can be done without a person"),
    }
}

/// All pages, one after the other.
fn examine(client: &Client, fix: bool) -> Result<Report> {
    let progress = Progress::new("looking at registry and servers");
    let mut report = Report { findings: Vec::new(), next_cursor: None, checked: Checked::default() };
    let (mut seen, mut told) = (HashSet::new(), HashSet::new());
    loop {
        let order = serde_json::to_string(&Order { fix, cursor: report.next_cursor.as_deref() })?;
        let answer = if fix {
            client.post_and_wait(&path(["doctor"]), Some(&order), WAIT)?
        } else {
            client.post(&path(["doctor"]), Some(&order))?
        };
        let page: Page = answer.json("doctor's report")?;
        // A server that does not answer is told where servers are looked at, and again where its tenants are.
        report.findings.extend(page.findings.into_iter().filter(|it| told.insert(it.get().to_owned())));
        report.checked.servers += page.checked.servers;
        report.checked.databases += page.checked.databases;
        report.checked.tenants += page.checked.tenants;
        report.next_cursor = page.next_cursor;
        progress.say(&format!("{} looked at, {} findings", looked_at(report.checked), report.findings.len()));
        let Some(cursor) = &report.next_cursor else { return Ok(report) };
        if !seen.insert(cursor.clone()) {
            bail!("the doctor goes in circles; check --url, and report it if that is a control plane");
        }
    }
}

fn looked_at(checked: Checked) -> String {
    format!("servers {}, databases {}, tenants {}", checked.servers, checked.databases, checked.tenants)
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::of(["KIND", "SERVER", "DATABASE", "TENANT", "FIXED", "DETAIL", "REMEDY"]);
    for it in findings {
        let or = |value: &Option<String>| or_nothing(value.as_deref()).to_owned();
        let fixed = if it.is_fixed { "yes" } else { "no" };
        table.row([&it.kind, &or(&it.server), &or(&it.database), &or(&it.tenant), fixed, &it.detail, &it.remedy]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::{Act, server};

    #[test]
    fn findings_are_shown_in_columns() {
        let findings = [
            r#"{"kind":"orphan-database","server":"local","database":"t_1","tenant":null,"detail":"no tenant has it",
                "remedy":"drop it","is_fixed":true}"#,
            r#"{"kind":"unopened-url","server":null,"database":null,"tenant":"acme","detail":"sealed by an unknown key",
                "remedy":"put the key back","is_fixed":false}"#,
        ];
        let findings: Vec<Finding> = findings.iter().map(|it| serde_json::from_str(it).unwrap()).collect();
        insta::assert_snapshot!(table(&findings).to_string(), @r"
        KIND             SERVER  DATABASE  TENANT  FIXED  DETAIL                    REMEDY
        orphan-database  local   t_1       -       yes    no tenant has it          drop it
        unopened-url     -       -         acme    no     sealed by an unknown key  put the key back
        ");
    }

    #[test]
    fn all_pages_make_one_report() {
        let page = |body| Act::Say("200 OK\r\ncontent-type: application/json", body);
        let one = r#"{"findings":[{"kind":"a"}],"next_cursor":"x","checked":{"servers":1,"databases":2,"tenants":3}}"#;
        let two = r#"{"findings":[{"kind":"b"}],"next_cursor":null,"checked":{"databases":10}}"#;
        let (client, asked) = server(vec![page(one), page(two)]);
        let report = serde_json::to_string(&examine(&client, false).unwrap()).unwrap();
        insta::assert_snapshot!(report, @r#"{"findings":[{"kind":"a"},{"kind":"b"}],"next_cursor":null,"checked":{"servers":1,"databases":12,"tenants":3}}"#);
        assert!(asked.join().unwrap().iter().all(|request| request.starts_with("POST /v1/doctor ")));

        let (client, asked) = server(vec![page(one), page(one)]);
        assert!(examine(&client, false).err().unwrap().to_string().contains("in circles"));
        asked.join().unwrap();
    }
}
