//! `freehold server set`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::{Named, Server, admin_url, show};
use crate::client::{Client, path};
use crate::operation;
use crate::output::{Output, plain};
use crate::progress::Progress;
use crate::tenant::Waiting;

/// What is typed after `freehold server set`.
#[derive(clap::Args)]
#[command(override_usage = "freehold server set [OPTIONS] <NAME> <--state STATE | --capacity N | ...>")]
#[command(after_help = "Example: freehold server set big --state draining")]
pub(crate) struct Options {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    waiting: Waiting,
}

/// What changes, as the API names it.
#[derive(clap::Args, Serialize)]
#[group(required = true, multiple = true)]
struct Change {
    /// Open the server for new databases, or drain it: it then takes none
    #[arg(long, value_parser = ["open", "draining"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    /// Place at most this many databases on it
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<u32>,
    /// Let all data planes together have this many connections open
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_budget: Option<u32>,
    /// Leave this many connections to control planes: more let a rollout work on more databases there at once
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    reserve: Option<u32>,
    /// Let all data planes together open this many connections in a second
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_rate: Option<u32>,
    /// Keep this many databases ready for new tenants
    #[arg(long, value_name = "N")]
    #[serde(skip_serializing_if = "Option::is_none")]
    warm: Option<u32>,
    /// Read another admin URL from this file; - is standard input. The control plane checks the URL first. If it names another
    /// address, the URLs of all tenants on the server follow, with the passwords that they have
    // FREEHOLD_ADMIN_URL does not count here: a variable that is left over must not change a server.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    admin_url_file: Option<PathBuf>,
    /// Have data planes reach the server at this address instead of the admin URL's; the URLs of all tenants on it follow
    #[arg(long, value_name = "HOST:PORT")]
    #[serde(skip)]
    data_address: Option<String>,
    /// Have data planes reach the server at the admin URL's address
    #[arg(long, conflicts_with = "data_address")]
    #[serde(skip)]
    no_data_address: bool,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(flatten)]
    change: &'a Change,
    #[serde(skip_serializing_if = "Option::is_none")]
    admin_url: Option<&'a str>,
    /// Null takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[allow(clippy::option_option, reason = "absent, null and a value are three things")]
    data_address: Option<Option<&'a str>>,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let name = &options.named.name;
    let answer = client.patch(&path(["servers", name]), &options.change.body()?);
    let answer = answer.with_context(|| format!("could not change {name}"))?;
    let server: Server = answer.json("server")?;
    let Some(begun) = server.r#move.as_ref().filter(|_| !options.waiting.no_wait) else {
        return output.show(answer.text(), || {
            let mut text = server.facts().to_string();
            if options.change.is_of_connections() {
                text.push_str(&show::warnings(client, name));
            }
            if options.change.connection_budget.is_some() && server.engine == "postgres" {
                text.push_str(ROLES);
            }
            text
        });
    };
    // Its tenants are served at its new address once their URLs name it.
    let bounded = client.within(options.waiting.patience());
    let saying = format!("moving {name}");
    let progress = Progress::new(&saying);
    let ended = operation::wait(&bounded, &begun.operation, &format!("server show {name}"), |operation| {
        progress.say(&format!("{saying}: {}", operation.progress()));
    });
    drop(progress);
    let ended = ended.with_context(|| format!("{name} is changed, and its tenants follow"))?;
    let answer = client.get(&path(["servers", name]))?;
    let server: Server = answer.json("server")?;
    output.show(answer.text(), || {
        let note = ended.operation.note.as_ref().map(|note| format!("\n{}\n", plain(note))).unwrap_or_default();
        format!("{}{note}", server.facts())
    })?;
    ended.operation.ensure_done(client, &format!("the tenants of {name} did not follow"), None)
}

/// What is to be done after another budget.
const ROLES: &str = "\nrun `freehold tenant doctor --fix` when you have set the budget: the login role of each tenant there may have as many \
    sessions as the budget, and keeps the old number until then\n";

impl Change {
    const fn is_of_connections(&self) -> bool {
        self.connection_budget.is_some() || self.reserve.is_some() || self.connect_rate.is_some()
    }

    fn body(&self) -> Result<String> {
        let admin_url = self.admin_url_file.as_deref().map(admin_url::from_file).transpose()?;
        let admin_url = admin_url.as_ref().map(SecretString::expose_secret);
        let data_address = self.data_address.as_deref().map(Some).or(self.no_data_address.then_some(None));
        Ok(serde_json::to_string(&Body { change: self, admin_url, data_address })?)
    }
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

    fn body(typed: &[&str]) -> Result<String> {
        Typed::try_parse_from([&["set", "big"], typed].concat())?.options.change.body()
    }

    #[test]
    fn only_what_was_typed_changes() {
        assert_eq!(body(&["--warm", "0"]).unwrap(), r#"{"warm":0}"#);
        assert_eq!(
            body(&["--connect-rate", "50", "--state", "draining", "--capacity", "7", "--connection-budget", "9"])
                .unwrap(),
            r#"{"state":"draining","capacity":7,"connection_budget":9,"connect_rate":50}"#
        );
        assert_eq!(body(&["--reserve", "40"]).unwrap(), r#"{"reserve":40}"#);
        assert_eq!(body(&["--data-address", "pooler:6432"]).unwrap(), r#"{"data_address":"pooler:6432"}"#);
        assert_eq!(body(&["--no-data-address"]).unwrap(), r#"{"data_address":null}"#);
        assert!(body(&["--no-data-address", "--data-address", "pooler:6432"]).is_err());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, "sqlite:///folder\n").unwrap();
        let sent = body(&["--admin-url-file", file.to_str().unwrap()]).unwrap();
        assert_eq!(sent, r#"{"admin_url":"sqlite:///folder"}"#);
    }

    #[test]
    fn something_must_change() {
        let error = body(&[]).unwrap_err().to_string();
        assert!(error.contains("--connection-budget"), "{error}");
        assert!(body(&["--state", "closed"]).is_err());
        for (option, value, range) in
            [("--connect-rate", "-1", "1..=10000"), ("--connection-budget", "0", "1..=1000000")]
        {
            let error = body(&[option, value]).unwrap_err().to_string();
            assert!(error.contains(range), "{error}");
        }
    }

    #[test]
    fn no_error_shows_the_admin_url() {
        let error = body(&["--admin-url-file", "postgres://admin:planted-password@db.test/postgres"]).unwrap_err();
        assert!(!format!("{error:#} {error:?}").contains("planted-password"), "{error:?}");
    }
}
