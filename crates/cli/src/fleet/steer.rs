//! `freehold fleet pause | resume | abort | retry`.

use anyhow::Result;

use super::rollout::Rollout;
use crate::client::{Client, path};
use crate::output::Output;

pub(super) fn run(client: &Client, output: Output, id: &str, what: &str) -> Result<()> {
    let answer = client.post(&path(["rollouts", id, what]), None)?;
    let rollout: Rollout = answer.json("rollout")?;
    output.show(answer.text(), || {
        let watch = format!("`freehold fleet watch {id}` shows how it goes on.");
        let text = match what {
            "pause" => format!("Nothing new begins. `freehold fleet resume {id}` goes on."),
            "abort" => format!("Given up: {} targets are skipped. What is done stays.", rollout.counts.skipped),
            _ => watch,
        };
        format!("{}\n{text}", rollout.facts())
    })
}
