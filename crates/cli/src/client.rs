//! HTTP to the control plane: JSON in, JSON out, every failure told so that its reader knows what to do.
//!
//! What can be repeated without harm is repeated when the line broke: reads, and what has an `Idempotency-Key`. The token
//! follows no redirect.

mod answer;
mod lost;
mod pages;
mod path;
mod refusal;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use secrecy::{ExposeSecret as _, SecretString};
use ureq::Agent;
use ureq::http::Request;
use ureq::tls::{RootCerts, TlsConfig};

use crate::access::Access;
pub(crate) use answer::Answer;
pub(crate) use lost::Lost;
pub(crate) use path::{path, query};
pub(crate) use refusal::Refusal;

/// No call of the API takes longer.
const LONGEST_CALL: Duration = Duration::from_mins(1);
/// A machine that is there takes a connection sooner.
const LONGEST_CONNECT: Duration = Duration::from_secs(10);
/// How often a call is tried whose line breaks, or whose server cannot answer now.
const TRIES: u32 = 4;
/// After this no further try begins.
const LONGEST_TRYING: Duration = Duration::from_secs(30);
/// The wait before the second try; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The header that names the version which is to be changed.
const IF_MATCH: &str = "if-match";

/// A header of one call, and what it says.
type Header = (&'static str, String);

/// A control plane, as an operator asks it.
#[derive(Clone)]
pub(crate) struct Client {
    agent: Agent,
    base: String,
    token: SecretString,
    token_from: String,
    deadline: Option<Instant>,
}

impl Client {
    pub(crate) fn new(access: Access) -> Self {
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(LONGEST_CONNECT))
            // Longer ones may be closed by whoever is in between, which shows only at the next call.
            .max_idle_age(Duration::from_secs(5))
            .user_agent(concat!("freehold/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls);
        if access.is_here {
            // Whatever proxy the environment names: it is on another machine.
            config = config.proxy(None);
        }
        Self {
            agent: config.build().into(),
            base: access.url,
            token: access.token,
            token_from: access.token_from,
            deadline: None,
        }
    }

    /// The same, and all that it does together takes no longer than this.
    pub(crate) fn within(&self, patience: Duration) -> Self {
        Self { deadline: Some(Instant::now() + patience), ..self.clone() }
    }

    /// How long it may still take.
    pub(crate) fn remains(&self) -> Duration {
        self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The control plane's URL.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    pub(crate) fn get(&self, path: &str) -> Result<Answer> {
        self.call("GET", path, None)
    }

    /// With an `Idempotency-Key` of its own.
    pub(crate) fn post(&self, path: &str, body: Option<&str>) -> Result<Answer> {
        self.call("POST", path, body)
    }

    /// As [`Client::post`], and the answer waits until what is begun has ended, this long at most.
    pub(crate) fn post_and_wait(&self, path: &str, body: Option<&str>, at_most: Duration) -> Result<Answer> {
        self.call_with("POST", path, body, Some(&("prefer", format!("wait={}", at_most.as_secs()))))
    }

    pub(crate) fn put(&self, path: &str, body: &str) -> Result<Answer> {
        self.call("PUT", path, Some(body))
    }

    pub(crate) fn patch(&self, path: &str, body: &str) -> Result<Answer> {
        self.call("PATCH", path, Some(body))
    }

    /// As [`Client::patch`], refused if the thing is another version meanwhile than the one that was read.
    pub(crate) fn patch_if(&self, path: &str, body: &str, version: Option<&str>) -> Result<Answer> {
        self.call_with("PATCH", path, Some(body), version.map(|version| (IF_MATCH, version.to_owned())).as_ref())
    }

    pub(crate) fn delete(&self, path: &str) -> Result<Answer> {
        self.call("DELETE", path, None)
    }

    fn call(&self, method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
        self.call_with(method, path, body, None)
    }

    /// With a header of its own.
    fn call_with(&self, method: &str, path: &str, body: Option<&str>, own: Option<&Header>) -> Result<Answer> {
        let key = (method == "POST").then(idempotency_key).transpose()?;
        // A PUT or PATCH that comes twice changes nothing more; a second DELETE would be refused, and the change of a version
        // that the first has changed.
        let is_repeatable = method != "DELETE" && own.is_none_or(|(name, _)| *name != IF_MATCH);
        let begun = Instant::now();
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = self.send(method, path, body, key.as_deref(), own);
            let backoff = (tries < TRIES).then(|| FIRST_PAUSE * 2_u32.pow(tries - 1));
            let pause = match &outcome {
                // The first try is at work yet: its answer comes.
                Ok(answer) if answer.is_in_progress() => Some(FIRST_PAUSE.max(answer.retry_after.unwrap_or_default())),
                Ok(answer) if answer.is_unavailable() && is_repeatable => {
                    backoff.map(|backoff| answer.retry_after.map_or(backoff, |wait| wait.max(backoff)))
                }
                Err(lost) if is_repeatable || !lost.has_left => backoff,
                _ => None,
            };
            match pause {
                Some(pause) if begun.elapsed() + pause < LONGEST_TRYING.min(self.remains()) => {
                    std::thread::sleep(pause);
                }
                _ => return refusal::check(outcome?, method, path, &self.base, &self.token_from),
            }
        }
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
        key: Option<&str>,
        own: Option<&Header>,
    ) -> Result<Answer, Lost> {
        let url = format!("{}{path}", self.base);
        // Zero would mean none.
        let limit = LONGEST_CALL.min(self.remains()).max(Duration::from_millis(1));
        let lost = |error: &ureq::Error| Lost::of(error, method, &url, limit);
        let mut request = Request::builder()
            .method(method)
            .uri(&url)
            .header("authorization", format!("Bearer {}", self.token.expose_secret()))
            .header("accept", "application/json, application/problem+json");
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some((name, value)) = own {
            request = request.header(*name, value);
        }
        let request = request.body(body.unwrap_or_default().to_owned()).map_err(|error| lost(&error.into()))?;
        let request = self.agent.configure_request(request).timeout_global(Some(limit)).build();
        let response = self.agent.run(request).map_err(|error| lost(&error))?;
        Answer::read(response).map_err(|error| lost(&error))
    }
}

/// 128 random bits: nobody else's request has them.
fn idempotency_key() -> Result<String> {
    let mut bits = [0; 16];
    getrandom::fill(&mut bits).context("the system has no random numbers")?;
    Ok(bits.iter().fold(String::new(), |mut key, byte| {
        let _ = write!(key, "{byte:02x}");
        key
    }))
}
