//! What a rollout's migrations do, as a scratch database showed it.

use std::fmt::Write as _;

use anyhow::{Result, bail};
use serde::Deserialize;

use super::events::{Event, some};
use crate::client::{Answer, Client, Refusal, path};
use crate::output::{Output, note, plain, print};

/// All rehearsals of an order.
#[derive(Debug, Deserialize)]
pub(super) struct Rehearsals {
    rehearsals: Vec<Rehearsal>,
}

/// All that is pending for one version, on one kind of server.
#[derive(Debug, Deserialize)]
struct Rehearsal {
    version: u32,
    engine: String,
    server: String,
    migrations: Vec<Migration>,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Migration {
    name: String,
    transaction: bool,
    statements: Vec<String>,
    locks: Vec<Lock>,
    rewrites: Vec<String>,
    findings: Vec<Found>,
}

#[derive(Debug, Deserialize)]
struct Lock {
    table: String,
    mode: String,
}

#[derive(Debug, Deserialize)]
struct Found {
    kind: String,
    detail: String,
}

/// Has the order rehearsed; answers what was told, and as it was told.
pub(super) fn ask(client: &Client, body: &str) -> Result<(Rehearsals, Answer)> {
    let answer = client.post(&path(["rollouts", "rehearse"]), Some(body))?;
    Ok((answer.json("rehearsal")?, answer))
}

/// Says what the migrations do that holds tenants up, before anything is ordered. Only `strict` refuses for it.
pub(super) fn lint(client: &Client, output: Output, body: &str, strict: bool) -> Result<()> {
    let findings = findings(client, body, strict)?;
    for finding in &findings {
        if output.is_json {
            print(&serde_json::to_string(finding)?)?;
        } else {
            note(&finding.line());
        }
    }
    if strict && !findings.is_empty() {
        bail!(
            "nothing was ordered: {} (`freehold fleet plan` shows them in place; without --strict they are only said)",
            some(findings.len() as u64, "finding")
        );
    }
    Ok(())
}

/// What is to be said of the migrations, and that it is not known.
fn findings(client: &Client, body: &str, strict: bool) -> Result<Vec<Event>> {
    match ask(client, body) {
        Ok((rehearsals, _)) => Ok(rehearsals.findings()),
        Err(error) if strict => Err(error.context("the migrations were not rehearsed, and nothing was ordered")),
        // What is refused here is refused when it is ordered, and says why.
        Err(error) if error.downcast_ref::<Refusal>().is_some_and(Refusal::is_of_the_order) => Ok(Vec::new()),
        Err(error) => Ok(vec![missed(&error)]),
    }
}

/// Nobody knows what the migrations do.
pub(super) fn missed(error: &anyhow::Error) -> Event {
    let (engine, kind) = ("every engine".to_owned(), "not_rehearsed".to_owned());
    Event::Finding { engine, migration: None, kind, detail: format!("{error:#}") }
}

impl Rehearsals {
    /// What holds others up, each once, and what could not be rehearsed.
    pub(super) fn findings(&self) -> Vec<Event> {
        let mut findings = Vec::new();
        for it in &self.rehearsals {
            let mut tell = |migration: Option<&str>, kind: &str, detail: &str| {
                let finding = Event::Finding {
                    engine: it.engine.clone(),
                    migration: migration.map(str::to_owned),
                    kind: kind.to_owned(),
                    detail: detail.to_owned(),
                };
                // The same migration may be pending for several versions.
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            };
            for migration in &it.migrations {
                for found in &migration.findings {
                    tell(Some(&migration.name), &found.kind, &found.detail);
                }
            }
            if let Some(error) = &it.error {
                tell(None, "not_rehearsed", &format!("from version {}: {error}", it.version));
            }
        }
        findings
    }

    /// All of it, for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for it in &self.rehearsals {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "From version {}, on {} ({}):", it.version, it.engine, it.server);
            for migration in &it.migrations {
                let outside = if migration.transaction { "" } else { ", outside of a transaction" };
                let _ = writeln!(text, "  {}{outside}", migration.name);
                for statement in &migration.statements {
                    let _ = writeln!(text, "    {}", plain(statement));
                }
                let locks: Vec<String> =
                    migration.locks.iter().map(|it| format!("{} ({})", it.table, it.mode)).collect();
                for (what, names) in [("locks", &locks), ("writes anew", &migration.rewrites)] {
                    if !names.is_empty() {
                        let _ = writeln!(text, "    {what}: {}", names.join(", "));
                    }
                }
                for found in &migration.findings {
                    let _ = writeln!(text, "    ! {}: {}", found.kind, plain(&found.detail));
                }
            }
            if let Some(error) = &it.error {
                let _ = writeln!(text, "  ! not rehearsed: {}", plain(error));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::tests::{Act, server};

    #[test]
    fn a_rehearsal_is_shown_statement_by_statement_and_each_finding_once() {
        let third = r#"{"name":"m3","transaction":true,"statements":["CREATE INDEX by_name ON pets (name)"],
            "locks":[{"table":"pets","mode":"ShareLock"}],"rewrites":["pets"],
            "findings":[{"kind":"index","detail":"make it concurrently"}]}"#;
        let rehearsals: Rehearsals = serde_json::from_str(&format!(
            r#"{{"rehearsals":[{{"version":1,"engine":"postgres","server":"local","migrations":[{third}],"error":null}},
                {{"version":2,"engine":"postgres","server":"local","migrations":[{third}],"error":null}},
                {{"version":2,"engine":"sqlite","server":"files","migrations":[],"error":"the disk is full"}}]}}"#
        ))
        .unwrap();
        insta::assert_snapshot!(rehearsals.text(), @r"
        From version 1, on postgres (local):
          m3
            CREATE INDEX by_name ON pets (name)
            locks: pets (ShareLock)
            writes anew: pets
            ! index: make it concurrently
        From version 2, on postgres (local):
          m3
            CREATE INDEX by_name ON pets (name)
            locks: pets (ShareLock)
            writes anew: pets
            ! index: make it concurrently
        From version 2, on sqlite (files):
          ! not rehearsed: the disk is full
        ");
        let lines: Vec<String> = rehearsals.findings().iter().map(Event::line).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        FINDING m3 (postgres): make it concurrently
        FINDING not rehearsed (sqlite): from version 2: the disk is full
        ");
    }

    #[test]
    fn migrations_that_nobody_rehearsed_are_said_and_ordered_only_without_strict() {
        const JSON: &str = "200 OK\r\ncontent-type: application/json";
        const MISSING: &str = "404 Not Found\r\ncontent-type: application/problem+json";
        const REFUSED: &str = "422 Unprocessable Entity\r\ncontent-type: application/problem+json";
        let found = r#"{"rehearsals":[{"version":1,"engine":"postgres","server":"local","error":null,"migrations":[{"name":"m2",
            "transaction":true,"statements":[],"locks":[],"rewrites":[],"findings":[{"kind":"index","detail":"it blocks"}]}]}]}"#;
        let none = r#"{"rehearsals":[]}"#;
        let unknown = r#"{"type":"urn:freehold:problem:not-found","detail":"no such path","status":404}"#;
        let refused = r#"{"type":"urn:freehold:problem:invalid-body","detail":"no such version","status":422}"#;
        let ask = |(head, body), strict| {
            let (client, asked) = server(vec![Act::Say(head, body), Act::Say(head, body)]);
            let said = findings(&client, "{}", strict).map(|all| all.iter().map(Event::line).collect::<Vec<_>>());
            let is_let_through = lint(&client, Output { is_json: true }, "{}", strict).is_ok();
            asked.join().unwrap();
            (said.unwrap_or_default(), is_let_through)
        };
        let blocks = "FINDING m2 (postgres): it blocks".to_owned();
        assert_eq!(ask((JSON, found), false), (vec![blocks.clone()], true));
        assert_eq!(ask((JSON, found), true), (vec![blocks], false));
        assert_eq!(ask((JSON, none), true), (Vec::new(), true));
        let (said, is_let_through) = ask((MISSING, unknown), false);
        let is_said =
            said[0].starts_with("FINDING not rehearsed (every engine): ") && said[0].contains("not older than this");
        assert!(is_said && is_let_through, "{said:?}");
        assert!(!ask((MISSING, unknown), true).1);
        assert_eq!(ask((REFUSED, refused), false), (Vec::new(), true), "the order itself is refused, and says why");
    }
}
