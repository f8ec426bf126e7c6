//! `freehold fleet verify`: whose schema is not what its version says.

use std::collections::HashSet;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::events::some;
use super::selection::Selection;
use crate::client::{Client, path};
use crate::output::{Output, plain};
use crate::progress::Progress;

/// What is typed after `freehold fleet verify`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only so many tenants, drawn at random
    #[arg(long, value_name = "N", conflicts_with = "all", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    sample: Option<u32>,
    /// All of them, which is so unless --sample is told
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Deserialize)]
struct Page {
    found: Vec<Box<RawValue>>,
    checked: Checked,
    next_cursor: Option<String>,
}

/// How many were looked at.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Checked {
    same: u64,
    differs: u64,
    unverified: u64,
}

/// All pages as one.
#[derive(Serialize)]
struct Report {
    found: Vec<Box<RawValue>>,
    checked: Checked,
}

/// A tenant that is not as it should be, or not known to be.
#[derive(Deserialize)]
struct Verified {
    slug: String,
    server: Option<String>,
    version: Option<u32>,
    #[serde(default)]
    diff: Vec<String>,
    detail: Option<String>,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let report = examine(client, options)?;
    let found: Result<Vec<Verified>, _> = report.found.iter().map(|it| serde_json::from_str(it.get())).collect();
    let found = found.context("the server answered what is no verification; check --url")?;
    let Checked { same, differs, unverified } = report.checked;
    if output.is_json {
        output.show_all(&report, String::new)?;
    } else if !found.is_empty() {
        output.show("", || text(&found))?;
    }
    let whole = format!("{} looked at", some(same + differs + unverified, "tenant"));
    let found = format!("{whole}: {same} as their version says, {differs} otherwise, {unverified} not verified");
    match (differs, unverified) {
        (0, 0) => output.done(&format!("All is well: {whole}, each schema is what its version says.")),
        (0, _) => bail!("{found}. Put right what is said, and verify again"),
        _ => bail!(
            "{found}. Somebody changed what differs by hand: change it back, or bring it to the others by a migration"
        ),
    }
}

/// All pages, one after the other.
fn examine(client: &Client, options: &Options) -> Result<Report> {
    let progress = Progress::new("looking at schemas");
    let mut report = Report { found: Vec::new(), checked: Checked::default() };
    let (mut seen, mut cursor) = (HashSet::new(), None);
    loop {
        let answer = client.post(&path(["fleet", "verify"]), Some(&options.body(cursor.as_deref())))?;
        let page: Page = answer.json("verification")?;
        report.found.extend(page.found);
        report.checked.same += page.checked.same;
        report.checked.differs += page.checked.differs;
        report.checked.unverified += page.checked.unverified;
        let Checked { same, differs, unverified } = report.checked;
        progress.say(&format!("{same} as they should be, {differs} differ, {unverified} not verified"));
        cursor = page.next_cursor;
        let Some(next) = &cursor else { return Ok(report) };
        if !seen.insert(next.clone()) {
            bail!("the pages go in circles; check --url, and report it if that is a control plane");
        }
    }
}

impl Options {
    /// As the API takes it.
    fn body(&self, cursor: Option<&str>) -> String {
        json!({ "select": self.selection.select(), "sample": self.sample, "cursor": cursor }).to_string()
    }
}

fn text(found: &[Verified]) -> String {
    let mut text = String::new();
    for it in found {
        let server = it.server.as_deref().map_or_else(String::new, |server| format!(" on {server}"));
        // Writing to a string cannot fail.
        let _ = match (it.version, &it.detail) {
            (_, Some(detail)) => writeln!(text, "{}{server}: not verified: {}", it.slug, plain(detail)),
            (Some(version), None) => writeln!(text, "{}{server} differs from version {version}:", it.slug),
            (None, None) => writeln!(text, "{}{server} differs:", it.slug),
        };
        for line in &it.diff {
            let _ = writeln!(text, "  {}", plain(line));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::client::tests::{Act, server};

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        options: Options,
    }

    fn typed(words: &str) -> Options {
        Typed::try_parse_from(std::iter::once("verify").chain(words.split_whitespace())).unwrap().options
    }

    const DIFFERS: &str = r#"{"tenant":"01a","slug":"acme","server":"local","state":"differs","version":3,
        "diff":["- index pets CREATE INDEX pets_by_name","+ column pets.colour text"],"fingerprint":"ab"}"#;
    const UNVERIFIED: &str = r#"{"tenant":"01b","slug":"globex","server":null,"state":"unverified",
        "detail":"the server local does not answer"}"#;

    #[test]
    fn a_difference_is_shown_as_a_diff_of_each_tenant() {
        let found = [DIFFERS, UNVERIFIED].map(|it| serde_json::from_str::<Verified>(it).unwrap());
        insta::assert_snapshot!(text(&found), @r"
        acme on local differs from version 3:
          - index pets CREATE INDEX pets_by_name
          + column pets.colour text
        globex: not verified: the server local does not answer
        ");
    }

    #[test]
    fn all_pages_are_asked_for_and_only_a_whole_fleet_is_success() {
        let say = |body: String| Act::Say("200 OK\r\ncontent-type: application/json", Box::leak(body.into_boxed_str()));
        let page = |found: &str, checked: &str, next: &str| {
            say(format!(r#"{{"found":[{found}],"checked":{{{checked}}},"next_cursor":{next}}}"#))
        };
        let output = Output { is_json: true };
        let (client, asked) = server(vec![page("", r#""same":200"#, r#""x""#), page("", r#""same":7"#, "null")]);
        assert!(run(&client, output, &typed("--only acme,globex")).is_ok());
        let asked = asked.join().unwrap();
        assert_eq!(asked.len(), 2);
        assert!(asked.iter().all(|request| request.starts_with("POST /v1/fleet/verify ")));
        for (found, checked) in [(DIFFERS, r#""differs":1"#), (UNVERIFIED, r#""unverified":1"#)] {
            let (client, asked) = server(vec![page(found, checked, "null")]);
            assert!(run(&client, output, &typed("--sample 5")).is_err(), "{checked}");
            asked.join().unwrap();
        }
    }

    #[test]
    fn only_what_was_typed_is_asked_for() {
        assert_eq!(typed("--all").body(None), r#"{"select":{},"sample":null,"cursor":null}"#);
        let some = typed("--sample 9 --only acme --server local").body(Some("x"));
        assert_eq!(some, r#"{"select":{"tenants":["acme"],"server":"local"},"sample":9,"cursor":"x"}"#);
        assert!(Typed::try_parse_from(["verify", "--sample", "0"]).is_err());
        assert!(Typed::try_parse_from(["verify", "--sample", "3", "--all"]).is_err());
    }
}
