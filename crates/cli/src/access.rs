//! Where the control plane is, and the token to show it: from the command line, from the environment, or from what
//! `cargo xtask dev` wrote down. No token is ever printed, or sent to where it was not meant for.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use ureq::http::Uri;

/// Beside `--json`, what every command takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Where the control plane listens [default: what .freehold/dev.json says, here or in a folder above]
    #[arg(long, global = true, env = "FREEHOLD_URL", value_name = "URL")]
    url: Option<String>,
    /// The operator token [default: what .freehold/dev.json says]; better in FREEHOLD_TOKEN, where no list of processes shows it
    #[arg(long, global = true, env = "FREEHOLD_TOKEN", hide_env_values = true, value_name = "TOKEN", value_parser = secret)]
    token: Option<SecretString>,
}

/// A control plane and the token for it.
#[derive(Debug)]
pub(crate) struct Access {
    /// Without a slash at its end.
    pub(crate) url: String,
    pub(crate) token: SecretString,
    /// Whence the token is, for who must replace it.
    pub(crate) token_from: String,
    /// The control plane is on this machine.
    pub(crate) is_here: bool,
}

/// The part of `dev.json` that is for us.
#[derive(Deserialize)]
struct Dev {
    control_url: String,
    operator_token: SecretString,
}

#[allow(clippy::unnecessary_wraps, reason = "clap asks for a parser that may fail")]
fn secret(text: &str) -> Result<SecretString, std::convert::Infallible> {
    Ok(text.trim().into())
}

impl Options {
    /// What was said, completed by the nearest `dev.json`.
    pub(crate) fn find(self) -> Result<Access> {
        let here = std::env::current_dir().context("the current folder is gone; change to another")?;
        self.complete(&here)
    }

    fn complete(self, folder: &Path) -> Result<Access> {
        // An empty variable says nothing.
        let url = self.url.filter(|url| !url.trim().is_empty());
        let token = self.token.filter(|token| !token.expose_secret().is_empty());
        if let (Some(url), Some(token)) = (&url, &token) {
            return Access::new(url, token.clone(), "--token or FREEHOLD_TOKEN".to_owned());
        }
        let Some(path) = written_down(folder) else {
            let missing = if url.is_none() { "--url or FREEHOLD_URL" } else { "--token or FREEHOLD_TOKEN" };
            bail!(
                "{missing} is missing, and no .freehold/dev.json is here or in a folder above.\n  \
                 Say both, or start a control plane of your own: cargo xtask dev"
            );
        };
        let dev = read(&path)?;
        let from = path.display().to_string();
        let written = Access::new(&dev.control_url, dev.operator_token, from.clone())
            .with_context(|| format!("{from} does not help; say --url and --token"))?;
        match (url, token) {
            (None, None) => Ok(written),
            (Some(url), None) if base(&url)? == written.url => Ok(written),
            // Its token is for its own control plane.
            (Some(url), _) => bail!(
                "--token or FREEHOLD_TOKEN is missing: {from} has one for {} alone, not for {}.",
                written.url,
                base(&url)?
            ),
            (None, Some(token)) if written.is_here => {
                Access::new(&written.url, token, "--token or FREEHOLD_TOKEN".to_owned())
            }
            // A token goes to no other machine because of a file that happens to lie in a folder above.
            (None, Some(_)) => {
                bail!("--url or FREEHOLD_URL is missing; if you mean {}, as {from} says, say so.", written.url)
            }
        }
    }
}

impl Access {
    fn new(url: &str, token: SecretString, token_from: String) -> Result<Self> {
        let url = base(url)?;
        if !token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("the token in {token_from} has spaces, line breaks or letters that no token has; copy it again");
        }
        let is_here = is_loopback(&url);
        Ok(Self { url, token, token_from, is_here })
    }
}

/// The nearest `.freehold/dev.json`, from the folder upwards.
fn written_down(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().map(|folder| folder.join(".freehold").join("dev.json")).find(|path| path.is_file())
}

fn read(path: &Path) -> Result<Dev> {
    let again = || format!("could not read {}; run `cargo xtask dev` again, or say --url and --token", path.display());
    let text = std::fs::read_to_string(path).with_context(again)?;
    serde_json::from_str(&text).with_context(again)
}

/// A URL that paths can be put behind.
fn base(text: &str) -> Result<String> {
    let text = text.trim();
    let uri: Uri = text.parse().ok().with_context(|| format!("`{text}` is no URL; write http://HOST:PORT"))?;
    let Some(authority) = uri.authority().filter(|_| matches!(uri.scheme_str(), Some("http" | "https"))) else {
        bail!("`{text}` is no URL of a control plane; write http://HOST:PORT or https://HOST");
    };
    if authority.as_str().contains('@') {
        bail!("the URL holds a name or password; write it without, and give the token with FREEHOLD_TOKEN");
    }
    if authority.host().is_empty() || uri.query().is_some() || text.contains('#') {
        bail!("`{text}` is more or less than a control plane's URL; write http://HOST:PORT or https://HOST");
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn is_loopback(url: &str) -> bool {
    let Some(host) = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)) else { return false };
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: Option<&str>, token: Option<&str>) -> Options {
        Options { url: url.map(str::to_owned), token: token.map(Into::into) }
    }

    /// A folder two below one with this `dev.json`.
    fn folder(control_url: &str) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let below = root.path().join("a/b");
        std::fs::create_dir_all(&below).unwrap();
        std::fs::create_dir(root.path().join(".freehold")).unwrap();
        let dev = format!(r#"{{"control_url":"{control_url}","data_url":"http://x","operator_token":"dev-secret"}}"#);
        std::fs::write(root.path().join(".freehold/dev.json"), dev).unwrap();
        (root, below)
    }

    #[test]
    fn dev_json_is_found_in_a_folder_above() {
        let (_root, below) = folder("http://127.0.0.1:8700");
        let access = options(None, Some("")).complete(&below).unwrap();
        assert_eq!(access.url, "http://127.0.0.1:8700");
        assert_eq!(access.token.expose_secret(), "dev-secret");
        assert!(access.is_here);
    }

    #[test]
    fn a_token_goes_only_where_it_was_meant_for() {
        let (_root, below) = folder("http://127.0.0.1:8700");
        let error = options(Some("https://elsewhere.test"), None).complete(&below).unwrap_err().to_string();
        assert!(error.starts_with("--token or FREEHOLD_TOKEN is missing"), "{error}");
        assert_eq!(options(None, Some("mine")).complete(&below).unwrap().url, "http://127.0.0.1:8700");

        let (_root, below) = folder("https://elsewhere.test");
        assert!(options(None, None).complete(&below).is_ok());
        let error = options(None, Some("mine")).complete(&below).unwrap_err().to_string();
        assert!(error.starts_with("--url or FREEHOLD_URL is missing"), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let nowhere = tempfile::tempdir().unwrap();
        let error = |url, token| options(url, token).complete(nowhere.path()).unwrap_err().to_string();
        assert!(error(None, Some("t")).starts_with("--url or FREEHOLD_URL is missing"));
        assert!(error(Some("http://x"), None).starts_with("--token or FREEHOLD_TOKEN is missing"));
    }

    #[test]
    fn no_debug_print_holds_the_token() {
        let (_root, below) = folder("http://127.0.0.1:8700");
        let given = options(Some("http://x"), Some("top-secret"));
        assert!(!format!("{given:?}").contains("top-secret"));
        assert!(!format!("{:?}", given.complete(&below).unwrap()).contains("top-secret"));
    }

    #[test]
    fn only_urls_of_a_server_are_taken() {
        assert_eq!(base(" http://127.0.0.1:8700/ ").unwrap(), "http://127.0.0.1:8700");
        assert_eq!(base("https://host/behind/").unwrap(), "https://host/behind");
        for bad in ["", "x y", "localhost:8700", "127.0.0.1", "ftp://x", "http://", "http://x?a=b", "http://x#a"] {
            assert!(base(bad).is_err(), "{bad}");
        }
        let error = base("http://me:hunter2@host").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn what_is_on_this_machine_is_known() {
        for here in ["http://127.0.0.1:1", "http://localhost", "http://[::1]:8700"] {
            assert!(is_loopback(here), "{here}");
        }
        assert!(!is_loopback("http://10.0.0.1"));
        assert!(!is_loopback("https://localhost.evil.test"));
    }
}
