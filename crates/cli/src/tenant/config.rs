//! `freehold tenant config`: entries whose keys and types the product declared. Values are JSON, and go as they were typed.

use std::str::FromStr;

use anyhow::{Context as _, Result, anyhow};
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Named;
use crate::client::{Client, path};
use crate::output::Output;
use crate::table::Table;

/// What is typed after `freehold tenant config`.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// List a tenant's configuration: its own entries, and the product's defaults for the rest
    List(Named),
    /// Print the value of one entry, as JSON
    Get(Entry),
    /// Set one entry
    Set {
        #[command(flatten)]
        entry: Entry,
        /// The value, as JSON: true, 5, '"blue"'
        #[arg(allow_negative_numbers = true)]
        value: Json,
    },
    /// Remove one entry, so that the product's default holds
    Unset(Entry),
}

/// One entry of one tenant.
#[derive(clap::Args)]
pub(crate) struct Entry {
    /// The tenant's slug or id
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    tenant: String,
    /// A key that the product declares
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    key: String,
}

/// A JSON value as it was typed.
#[derive(Clone, Debug)]
pub(crate) struct Json(pub(super) Box<RawValue>);

impl FromStr for Json {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Ok(value) = serde_json::from_str(text) {
            return Ok(Self(value));
        }
        let is_begun = text.trim_start().starts_with(['{', '[', '"']);
        let quoted = if text.contains('\'') || is_begun {
            "a string needs double quotes, and the shell single quotes around the whole".to_owned()
        } else {
            format!("a string needs double quotes, and the shell single quotes around them: '{}'", Value::from(text))
        };
        Err(anyhow!("`{text}` is no JSON; {quoted}"))
    }
}

pub(super) fn run(client: &Client, output: Output, command: Command) -> Result<()> {
    match command {
        Command::List(Named { tenant }) => {
            let answer = client.get(&path(["tenants", &tenant, "config"]))?;
            let entries: serde_json::Map<String, Value> = answer.json("configuration")?;
            let mut table = Table::of(["KEY", "VALUE"]);
            entries.iter().for_each(|(key, value)| table.row([key, &value.to_string()]));
            output.show(answer.text(), || table.to_string())
        }
        Command::Get(entry) => {
            let answer = client.get(&entry.path())?;
            output.show(answer.text(), || answer.text().to_owned())
        }
        Command::Set { entry, value } => {
            let answer = client.put(&entry.path(), value.0.get());
            let answer = answer.with_context(|| format!("could not set {} of {}", entry.key, entry.tenant))?;
            output.show(answer.text(), || format!("{} of {} is {}", entry.key, entry.tenant, answer.text()))
        }
        Command::Unset(entry) => {
            let answer = client.delete(&entry.path());
            answer.with_context(|| format!("could not unset {} of {}", entry.key, entry.tenant))?;
            output.done(&format!("{} of {} is the product's default", entry.key, entry.tenant))
        }
    }
}

impl Entry {
    fn path(&self) -> String {
        path(["tenants", &self.tenant, "config", &self.key])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_goes_as_it_was_typed() {
        for text in ["true", "-5", "1.0", r#""blue""#, r#"{"b":1,"a":[1e400]}"#, "null"] {
            assert_eq!(text.parse::<Json>().unwrap().0.get(), text);
        }
    }

    #[test]
    fn a_bare_word_is_told_how_to_be_quoted() {
        let error = |text: &str| text.parse::<Json>().unwrap_err().to_string();
        insta::assert_snapshot!(error("dark blue"), @r#"`dark blue` is no JSON; a string needs double quotes, and the shell single quotes around them: '"dark blue"'"#);
        insta::assert_snapshot!(error("{a: 1}"), @"`{a: 1}` is no JSON; a string needs double quotes, and the shell single quotes around the whole");
        insta::assert_snapshot!(error("it's"), @"`it's` is no JSON; a string needs double quotes, and the shell single quotes around the whole");
        assert!("".parse::<Json>().is_err());
    }
}
