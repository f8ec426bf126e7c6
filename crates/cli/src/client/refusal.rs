//! An answer that is no yes: a problem (RFC 9457) of the control plane, or what something else answered in its place.

use std::fmt;

use anyhow::{Result, bail};
use serde::Deserialize;

use super::{Answer, Lost};
use crate::output::plain;

const TYPE_PREFIX: &str = "urn:freehold:problem:";

/// What the control plane said instead of yes.
#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
    request_id: Option<String>,
    #[serde(default)]
    errors: Vec<FieldError>,
    /// What else helps the one who typed the command.
    #[serde(skip)]
    hint: Option<String>,
    #[serde(default)]
    status: u16,
}

#[derive(Debug, Deserialize)]
struct FieldError {
    field: String,
    detail: String,
}

impl Refusal {
    /// No other call with this token would fare better.
    pub(crate) fn is_of_the_token(&self) -> bool {
        matches!(self.status, 401 | 403)
    }

    /// What was asked for cannot be had as it is, now or ever.
    pub(crate) fn is_of_the_order(&self) -> bool {
        matches!(self.status, 409 | 422)
    }

    /// The control plane could not, for now.
    pub(crate) fn is_of_the_server(&self) -> bool {
        self.status >= 500
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&plain(&self.detail))?;
        // What the detail says already is not said twice.
        for error in self.errors.iter().filter(|error| !self.detail.contains(&error.detail)) {
            write!(f, "\n  {}: {}", plain(&error.field), plain(&error.detail))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  {hint}")?;
        }
        if let Some(id) = &self.request_id {
            write!(f, "\n  request id: {}", plain(id))?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Lets an answer through that is a yes of the API.
pub(super) fn check(answer: Answer, method: &str, path: &str, base: &str, token_from: &str) -> Result<Answer> {
    let status = answer.status;
    let is_json = answer.media == "application/json" || answer.media == "application/problem+json";
    if (200..300).contains(&status) {
        if is_json || answer.text().is_empty() {
            return Ok(answer);
        }
        bail!("{base} is no control plane: it answered {}, not JSON\n  Check --url.", media(&answer));
    }
    if (300..400).contains(&status) {
        let location = answer.location.as_deref().map_or_else(|| "elsewhere".to_owned(), plain);
        bail!("{base} points to {location} ({status})\n  Give the control plane's own URL with --url.");
    }
    let refusal = serde_json::from_str(answer.text()).ok().filter(|it: &Refusal| it.kind.starts_with(TYPE_PREFIX));
    let Some(mut refusal) = refusal else {
        let what = format!(
            "{base} answered {status} with {}, as no control plane does\n  \
             Check --url, and what stands between here and the control plane.",
            media(&answer)
        );
        if status < 500 {
            bail!(what);
        }
        // What stands in between may find its way to the control plane again.
        return Err(Lost::on_the_way(what).into());
    };
    refusal.status = status;
    refusal.request_id = refusal.request_id.or(answer.request_id);
    let kind = refusal.kind.trim_start_matches(TYPE_PREFIX);
    let path = path.split('?').next().unwrap_or_default();
    refusal.hint = match (status, kind) {
        (401 | 403, _) => Some(format!("The token is from {token_from}.")),
        (404, "tenant-not-found") => Some("`freehold tenant list` shows those there are.".to_owned()),
        (404, "server-not-found") => Some("`freehold server list` shows those there are.".to_owned()),
        (404, "key-not-found") => Some("`freehold tenant key list TENANT` shows those it has.".to_owned()),
        (404, "issuer-not-found") => Some("`freehold tenant issuer list TENANT` shows those it has.".to_owned()),
        (404, "domain-not-found") => Some("`freehold tenant domain list TENANT` shows those it has.".to_owned()),
        // Its own details are for who writes a client.
        (412, "stale") => {
            "It was changed by somebody else in this moment. Try again.".clone_into(&mut refusal.detail);
            None
        }
        (404, "not-found") | (405, _) => {
            refusal.detail = format!("{base} does not know {method} {path}.");
            let version = env!("CARGO_PKG_VERSION");
            Some(format!(
                "Check that --url is the API of a control plane, and no data plane's or ops listener's, and that it is not \
                 older than this freehold ({version})."
            ))
        }
        _ => None,
    };
    Err(refusal.into())
}

fn media(answer: &Answer) -> String {
    if answer.media.is_empty() { "no media type".to_owned() } else { plain(&answer.media) }
}
