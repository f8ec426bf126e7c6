//! What a rollout's migrations do, as a scratch database showed it.

use std::fmt::Write as _;

use anyhow::Result;
use serde::Deserialize;

use super::events::Event;
use crate::client::{Answer, Client, path};
use crate::output::plain;

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
}
