//! HTTP to the planes, as any client speaks it: JSON in, a status and JSON out.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

/// One plane, and the credential to show it.
pub(super) struct Client {
    agent: Agent,
    base: String,
    credential: String,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Null when the body is empty or no JSON.
    pub(super) body: Value,
}

impl Client {
    pub(super) fn new(base: String, credential: &str) -> Self {
        Self {
            // A tenant's creation is waited for, for a minute.
            agent: agent(Duration::from_secs(90)),
            base,
            credential: credential.to_owned(),
        }
    }

    pub(super) fn get(&self, path: &str) -> Result<Answer> {
        self.call("GET", path, None)
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.call("POST", path, Some(body))
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", format!("Bearer {}", self.credential))
            .header("content-type", "application/json")
            .header("prefer", "wait=60")
            .body(body.map(Value::to_string).unwrap_or_default())?;
        let mut response = self.agent.run(request).with_context(|| format!("{method} {}{path}", self.base))?;
        let text = response.body_mut().read_to_string()?;
        Ok(Answer { status: response.status().as_u16(), body: serde_json::from_str(&text).unwrap_or(Value::Null) })
    }
}

impl Answer {
    /// The answer's body, or its problem as an error.
    pub(super) fn ok(self, what: &str) -> Result<Value> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let detail = self.body["detail"].as_str().unwrap_or("no detail");
        bail!("{what}: {} {detail}", self.status)
    }
}

/// Status and body of `/readyz`.
pub(super) fn readiness(ops_url: &str) -> Result<(u16, String)> {
    let mut response = agent(Duration::from_secs(5)).get(format!("{ops_url}/readyz")).call()?;
    let body = response.body_mut().read_to_string()?;
    Ok((response.status().as_u16(), body))
}

fn agent(timeout: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(timeout))
        // The planes are on this machine, whatever proxy the environment names.
        .proxy(None)
        .build()
        .into()
}
