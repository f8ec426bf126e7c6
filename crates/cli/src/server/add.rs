//! `freehold server add`.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::{Named, Server, admin_url};
use crate::client::{Client, path};
use crate::output::Output;

/// What is typed after `freehold server add`.
#[derive(clap::Args)]
#[command(after_help = "\
The admin URL is postgres://ADMIN:PASSWORD@HOST/postgres or sqlite:///FOLDER. It holds a password, so no argument takes it. Without \
--admin-url-file, set FREEHOLD_ADMIN_URL.

Example: freehold server add big --engine postgres --region eu --capacity 1000 --admin-url-file /run/secrets/big")]
pub(crate) struct Options {
    #[command(flatten)]
    named: Named,
    /// Choose what the server runs
    #[arg(long, value_parser = ["postgres", "sqlite"])]
    engine: String,
    /// Say where the server is
    #[arg(long)]
    region: String,
    /// Have data planes reach the server at this address instead of the admin URL's: a pooler that pools sessions, for example
    #[arg(long, value_name = "HOST:PORT")]
    data_address: Option<String>,
    /// Place at most this many databases on it
    #[arg(long, value_name = "N")]
    capacity: u32,
    /// Let all data planes together have this many connections open [default: what the server takes, less what control planes need]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connection_budget: Option<u32>,
    /// Leave this many connections to control planes [default: what one needs; on a small server half of what it takes]
    #[arg(long, value_name = "N")]
    reserve: Option<u32>,
    /// Let all data planes together open this many connections in a second [default: 200]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connect_rate: Option<u32>,
    /// Keep this many databases ready for new tenants [default: 2]
    #[arg(long, value_name = "N")]
    warm: Option<u32>,
    /// Read the admin URL from this file; - is standard input [default: the variable FREEHOLD_ADMIN_URL]
    #[arg(long, value_name = "FILE")]
    admin_url_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct NewServer<'a> {
    name: &'a str,
    engine: &'a str,
    region: &'a str,
    admin_url: &'a str,
    capacity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_budget: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserve: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_rate: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warm: Option<u32>,
}

pub(super) fn run(client: &Client, output: Output, options: &Options) -> Result<()> {
    let admin_url = options.admin_url(std::env::var_os(admin_url::VARIABLE))?;
    let answer = client.post(&path(["servers"]), Some(&options.body(&admin_url)?));
    let answer = answer.with_context(|| format!("could not add {}", options.named.name))?;
    let server: Server = answer.json("server")?;
    output.show(answer.text(), || server.facts().to_string())
}

impl Options {
    /// From the file if one is named, else from the variable.
    fn admin_url(&self, variable: Option<OsString>) -> Result<SecretString> {
        match &self.admin_url_file {
            Some(file) => admin_url::from_file(file),
            None => admin_url::from_environment(variable),
        }
    }

    fn body(&self, admin_url: &SecretString) -> Result<String> {
        Ok(serde_json::to_string(&NewServer {
            name: &self.named.name,
            engine: &self.engine,
            region: &self.region,
            admin_url: admin_url.expose_secret(),
            capacity: self.capacity,
            data_address: self.data_address.as_deref(),
            connection_budget: self.connection_budget,
            reserve: self.reserve,
            connect_rate: self.connect_rate,
            warm: self.warm,
        })?)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::client::tests::{Act, server};

    const URL: &str = "postgres://admin:planted-password@db.test/postgres";

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        options: Options,
    }

    const TYPED: [&str; 8] = ["add", "big", "--engine", "postgres", "--region", "eu", "--capacity", "1000"];

    fn typed(more: &[&str]) -> Result<Options, clap::Error> {
        Ok(Typed::try_parse_from([&TYPED[..], more].concat())?.options)
    }

    #[test]
    fn only_what_was_typed_is_sent() {
        let body = |more| typed(more).unwrap().body(&URL.into()).unwrap();
        insta::assert_snapshot!(
            body(&[]),
            @r#"{"name":"big","engine":"postgres","region":"eu","admin_url":"postgres://admin:planted-password@db.test/postgres","capacity":1000}"#
        );
        let all = body(&["--connection-budget", "70", "--reserve", "20", "--connect-rate", "50", "--warm", "0"]);
        assert!(all.ends_with(r#","connection_budget":70,"reserve":20,"connect_rate":50,"warm":0}"#), "{all}");
        assert!(typed(&["--engine", "oracle"]).is_err());
    }

    #[test]
    fn a_file_counts_more_than_the_variable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, URL).unwrap();
        let variable = || Some("sqlite:///elsewhere".into());
        let options = typed(&["--admin-url-file", file.to_str().unwrap()]).unwrap();
        assert_eq!(options.admin_url(variable()).unwrap().expose_secret(), URL);
        assert_eq!(typed(&[]).unwrap().admin_url(variable()).unwrap().expose_secret(), "sqlite:///elsewhere");
        assert!(typed(&[]).unwrap().admin_url(None).is_err());
    }

    #[test]
    fn no_argument_takes_the_admin_url_and_no_error_shows_it() {
        let as_one = format!("--admin-url={URL}");
        let mut errors = vec![];
        for wrong in [&["--admin-url", URL][..], &[as_one.as_str()]] {
            let error = typed(wrong).err().unwrap().to_string();
            assert!(error.contains("--admin-url-file"), "{error}");
            errors.push(error);
        }
        errors.push(format!("{:#}", typed(&["--admin-url-file", URL]).unwrap().admin_url(None).unwrap_err()));

        let refused = Act::Say(
            "422 Unprocessable Entity\r\ncontent-type: application/problem+json",
            r#"{"type":"urn:freehold:problem:server-unusable","status":422,"detail":"The server cannot be used: it is away."}"#,
        );
        for act in [refused, Act::Say("400 Bad Request\r\ncontent-type: text/html", "<html>")] {
            let (client, asked) = server(vec![act]);
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("url");
            std::fs::write(&file, URL).unwrap();
            let options = typed(&["--admin-url-file", file.to_str().unwrap()]).unwrap();
            let error = run(&client, Output { is_json: true }, &options).unwrap_err();
            assert!(error.to_string().starts_with("could not add big"), "{error}");
            errors.push(format!("{error:#} {error:?}"));
            assert!(asked.join().unwrap()[0].starts_with("POST /v1/servers HTTP/1.1"));
        }
        for error in errors {
            assert!(!error.contains("planted-password"), "{error}");
        }
    }
}
