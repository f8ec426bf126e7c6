//! What a rollout is to do, as it is typed for `plan` and `migrate`.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::selection::Selection;

/// What is to be rolled out, to whom and how. What is not typed is as the control plane has it.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The schema version: how many of the product's migrations each database has then; all that the control plane contains
    /// unless told
    #[arg(long, value_name = "VERSION")]
    to: Option<u32>,
    /// Take migrations back, down to --to, where they allow it
    #[arg(long, requires = "to")]
    down: bool,
    #[command(flatten)]
    selection: Selection,
    /// Who goes first: a number of tenants, or their slugs or ids; one unless told
    #[arg(long, value_name = "N|TENANT,…")]
    canary: Option<String>,
    /// How many percent are done at the end of each wave after the canaries; the last wave has the rest [default: 1,10,50]
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',')]
    waves: Option<Vec<f64>>,
    /// Databases that are changed at once, by all control planes together [default: 16]
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Databases that are changed at once on one server, as far as its reserve allows [default: 8]
    #[arg(long, value_name = "N")]
    per_server: Option<u32>,
    /// The error budget: how many may fail in all, as a number or in percent [default: 1%]
    #[arg(long, value_name = "N|P%")]
    max_failed: Option<String>,
    /// As --max-failed, in each wave
    #[arg(long, value_name = "N|P%")]
    max_failed_in_wave: Option<String>,
    /// Seconds of rest between two waves [default: 0]
    #[arg(long, value_name = "SECONDS")]
    rest: Option<u32>,
    /// Seconds that the canaries' requests are watched before the next wave [default: 0, not at all]
    #[arg(long, value_name = "SECONDS")]
    watch_canaries: Option<u32>,
    /// Requests that the canaries have to have had before the next wave [default: 0]
    #[arg(long, value_name = "N")]
    canary_requests: Option<u32>,
    /// Percent of the canaries' requests that may be answered with a 5xx; above it the rollout waits for a resume [default: 1]
    #[arg(long, value_name = "PERCENT")]
    canary_errors: Option<f64>,
    /// Wait for `freehold fleet resume` before each next wave
    #[arg(long)]
    confirm: bool,
    /// Milliseconds that a migration waits for a lock, and a tenant's query behind it [default: 500]
    #[arg(long, value_name = "MS")]
    lock_timeout: Option<u32>,
    /// Seconds that a statement of a migration may take [default: 600]
    #[arg(long, value_name = "SECONDS")]
    statement_timeout: Option<u32>,
    /// How often a database is tried that somebody else is in the way of [default: 8]
    #[arg(long, value_name = "N")]
    attempts: Option<u32>,
}

impl Options {
    /// As the API takes it.
    pub(super) fn body(&self) -> Result<String> {
        let mut body = Map::new();
        put(&mut body, "version", self.to);
        if self.down {
            body.insert("down".to_owned(), json!(true));
        }
        let mut settings = Map::new();
        put(&mut settings, "canary", self.canary.as_deref().map(canary));
        put(&mut settings, "waves", self.waves.as_deref());
        put(&mut settings, "concurrency", self.concurrency);
        put(&mut settings, "per_server", self.per_server);
        put(&mut settings, "budget", self.max_failed.as_deref().map(budget).transpose()?);
        put(&mut settings, "wave_budget", self.max_failed_in_wave.as_deref().map(budget).transpose()?);
        put(&mut settings, "rest_seconds", self.rest);
        if self.canary_errors.is_some() && self.watch_canaries.is_none() && self.canary_requests.is_none() {
            bail!(
                "--canary-errors says what is too much: say with --watch-canaries or --canary-requests that they are watched"
            );
        }
        let mut health = Map::new();
        put(&mut health, "seconds", self.watch_canaries);
        put(&mut health, "requests", self.canary_requests);
        put(&mut health, "max_error_percent", self.canary_errors);
        put(&mut settings, "health", (!health.is_empty()).then_some(health));
        put(&mut settings, "confirm", self.confirm.then_some(true));
        put(&mut settings, "lock_timeout_ms", self.lock_timeout);
        put(&mut settings, "statement_timeout_seconds", self.statement_timeout);
        put(&mut settings, "attempts", self.attempts);
        for (name, part) in [("select", self.selection.select()), ("settings", settings)] {
            if !part.is_empty() {
                body.insert(name.to_owned(), part.into());
            }
        }
        Ok(Value::Object(body).to_string())
    }
}

fn put(object: &mut Map<String, Value>, name: &str, value: Option<impl Into<Value> + Clone>) {
    if let Some(value) = value {
        object.insert(name.to_owned(), value.into());
    }
}

/// A number of tenants, or their names.
fn canary(typed: &str) -> Value {
    match typed.parse::<u32>() {
        Ok(number) => json!(number),
        Err(_) => json!(typed.split(',').map(str::trim).collect::<Vec<_>>()),
    }
}

/// `3`, or `1.5%`.
fn budget(typed: &str) -> Result<Value> {
    if let Some(percent) = typed.strip_suffix('%') {
        if let Ok(percent) = percent.trim().parse::<f64>() {
            return Ok(json!({ "percent": percent }));
        }
    } else if let Ok(number) = typed.parse::<u32>() {
        return Ok(json!({ "targets": number }));
    }
    bail!("{typed:?} is no error budget: say 3, or 1.5%")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        options: Options,
    }

    fn body(typed: &str) -> String {
        let words = std::iter::once("plan").chain(typed.split_whitespace());
        Typed::try_parse_from(words).unwrap().options.body().unwrap()
    }

    #[test]
    fn only_what_was_typed_is_asked_for() {
        assert_eq!(body(""), "{}");
        assert_eq!(body("--to 2 --down"), r#"{"version":2,"down":true}"#);
        assert_eq!(
            body("--only acme,globex --canary 3 --max-failed 1.5% --confirm"),
            r#"{"select":{"tenants":["acme","globex"]},"settings":{"canary":3,"budget":{"percent":1.5},"confirm":true}}"#
        );
        assert_eq!(
            body("--canary acme,globex --waves 5,50 --max-failed-in-wave 2"),
            r#"{"settings":{"canary":["acme","globex"],"waves":[5.0,50.0],"wave_budget":{"targets":2}}}"#
        );
        assert_eq!(
            body("--watch-canaries 60 --canary-requests 20 --canary-errors 0.5"),
            r#"{"settings":{"health":{"seconds":60,"requests":20,"max_error_percent":0.5}}}"#
        );
        assert!(budget("few").is_err() && budget("x%").is_err() && budget("-1").is_err());
    }
}
