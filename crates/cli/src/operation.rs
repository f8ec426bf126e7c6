//! Long actions: waiting until one ended, and telling how it goes and how it went.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::{Client, Lost, Refusal, path};
use crate::output::plain;

/// Between two looks at an operation, at first and at last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// An operation, as far as we read it.
#[derive(Debug, Deserialize)]
pub(crate) struct Operation {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) error: Option<String>,
    pub(crate) note: Option<String>,
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
}

/// One of its steps.
#[derive(Debug, Deserialize)]
pub(crate) struct Step {
    name: String,
    state: String,
    attempts: u32,
    error: Option<String>,
}

/// How it ended.
pub(crate) struct Ended {
    pub(crate) operation: Operation,
    /// As the API tells it.
    pub(crate) raw: Box<RawValue>,
}

impl Operation {
    fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "done" | "failed" | "cancelled")
    }

    pub(crate) fn is_done(&self) -> bool {
        self.state == "done"
    }

    /// The step in progress, and how often it was tried.
    pub(crate) fn progress(&self) -> String {
        let is_undoing = self.state == "undoing";
        let current = if is_undoing {
            self.steps.iter().enumerate().rev().find(|(_, step)| matches!(step.state.as_str(), "done" | "failed"))
        } else {
            self.steps.iter().enumerate().find(|(_, step)| step.state == "pending")
        };
        // One that is not begun, or has ended, has no step in progress.
        let is_at_work = !self.has_ended() && self.steps.iter().any(|step| step.attempts > 0);
        let current = current.filter(|_| is_at_work);
        let Some((index, step)) = current else { return self.state.clone() };
        let mut text = if is_undoing {
            format!("undoing {}", step.name)
        } else {
            format!("step {} of {}, {}", index + 1, self.steps.len(), step.name)
        };
        if step.attempts > 1 {
            let _ = write!(text, ", attempt {}", step.attempts);
        }
        if let Some(error) = &step.error {
            let _ = write!(text, " ({})", plain(error));
        }
        text
    }

    /// Fails unless it is done; says how to go on: to retry it, or what else helps.
    pub(crate) fn ensure_done(&self, client: &Client, what: &str, otherwise: Option<&str>) -> Result<()> {
        if self.is_done() {
            return Ok(());
        }
        let error = self.error.as_deref().map_or_else(|| format!("the operation is {}", self.state), plain);
        let attempts = self.steps.iter().find(|step| step.state == "failed" || step.error.is_some());
        let attempts = attempts.map(|step| format!(" at the step {} (attempt {})", step.name, step.attempts));
        bail!(
            "{what}: {error}\n  Operation {} ended as {}{}. Mend the cause, then retry it:\n  \
             curl -X POST -H \"Authorization: Bearer $FREEHOLD_TOKEN\" {}{}{}",
            self.id,
            self.state,
            attempts.unwrap_or_default(),
            client.base(),
            path(["operations", &self.id, "retry"]),
            otherwise.map(|text| format!("\n  {text}")).unwrap_or_default()
        )
    }
}

/// Waits until the operation ended, for as long as the client may take. `show` is the command that tells how far it is.
pub(crate) fn wait(client: &Client, id: &str, show: &str, mut look: impl FnMut(&Operation)) -> Result<Ended> {
    let mut pause = PAUSE.0;
    loop {
        let how_far = match client.get(&path(["operations", id])) {
            Ok(answer) => {
                let operation: Operation = answer.json("operation")?;
                if operation.has_ended() {
                    return Ok(Ended { operation, raw: answer.raw()? });
                }
                look(&operation);
                operation.progress()
            }
            // The operation does not end with the control plane that we asked: another takes it over.
            Err(error) if is_passing(&error) => error.to_string(),
            Err(error) => return Err(error),
        };
        if client.remains() <= pause {
            bail!(
                "it takes longer than --timeout ({how_far}), and goes on by itself: operation {id}\n  \
                 `freehold {show}` tells how far it is."
            );
        }
        std::thread::sleep(pause);
        pause = (pause * 3 / 2).min(PAUSE.1);
    }
}

/// The next look may fare better.
fn is_passing(error: &anyhow::Error) -> bool {
    error.is::<Lost>() || error.downcast_ref::<Refusal>().is_some_and(Refusal::is_of_the_server)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(state: &str, steps: [(&str, u32, Option<&str>); 3]) -> Operation {
        let steps = steps.into_iter().zip(["place", "migrate", "activate"]).map(|((state, attempts, error), name)| {
            Step { name: name.to_owned(), state: state.to_owned(), attempts, error: error.map(str::to_owned) }
        });
        Operation {
            id: "1".to_owned(),
            kind: "create".to_owned(),
            state: state.to_owned(),
            error: None,
            note: None,
            steps: steps.collect(),
        }
    }

    #[test]
    fn the_step_in_progress_is_told_with_its_attempts() {
        let running = operation("running", [("done", 1, None), ("pending", 1, None), ("pending", 0, None)]);
        assert_eq!(running.progress(), "step 2 of 3, migrate");
        let again =
            operation("running", [("done", 1, None), ("pending", 3, Some("it\nis full")), ("pending", 0, None)]);
        assert_eq!(again.progress(), "step 2 of 3, migrate, attempt 3 (it is full)");
        let undoing = operation("undoing", [("done", 1, None), ("undone", 5, None), ("pending", 0, None)]);
        assert_eq!(undoing.progress(), "undoing place");
        let failed = operation("failed", [("done", 1, None), ("undone", 5, None), ("pending", 0, None)]);
        assert_eq!(failed.progress(), "failed");
        let due_later = operation("pending", [("pending", 0, None), ("pending", 0, None), ("pending", 0, None)]);
        assert_eq!(due_later.progress(), "pending");
        assert_eq!(
            operation("pending", [("done", 1, None), ("done", 1, None), ("done", 1, None)]).progress(),
            "pending"
        );
    }
}
