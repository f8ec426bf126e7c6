//! What a caller is told of its limits: the headers that are in wide use, and those of the IETF's draft
//! (draft-ietf-httpapi-ratelimit-headers-10).

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::meter::Left;
use super::seconds;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What is left to a caller: of its tenant's limit, and of its own within it. Nothing where nothing is limited.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Allowance {
    pub(super) tenant: Option<Left>,
    pub(super) client: Option<Left>,
}

impl Allowance {
    /// Seconds until the next request would pass, at least one.
    pub(crate) fn retry_after(&self) -> u64 {
        let waits = [self.tenant, self.client].into_iter().flatten().map(|left| seconds(left.until_next));
        waits.max().unwrap_or(0).max(1)
    }

    /// Whether it is the caller's own limit that keeps it waiting, and not its tenant's.
    pub(crate) fn is_held_by_client(&self) -> bool {
        let wait = |left: Option<Left>| left.map_or(0, |left| left.until_next);
        wait(self.client) > wait(self.tenant)
    }

    /// Writes the headers. The three old ones are of the limit that has less left.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let Some(tightest) = [self.tenant, self.client].into_iter().flatten().min_by_key(|left| left.requests) else {
            return;
        };
        headers.insert(LIMIT, HeaderValue::from(tightest.quota.requests));
        headers.insert(REMAINING, HeaderValue::from(tightest.requests));
        headers.insert(RESET, HeaderValue::from(seconds(tightest.until_full)));
        let (mut policy, mut now) = (String::with_capacity(64), String::with_capacity(64));
        for (name, left) in [("tenant", self.tenant), ("client", self.client)] {
            let Some(left) = left else { continue };
            let comma = if policy.is_empty() { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(policy, "{comma}\"{name}\";q={};w={}", left.quota.requests, left.quota.window);
            let _ = write!(now, "{comma}\"{name}\";r={};t={}", left.requests, seconds(left.until_full));
        }
        for (name, text) in [(POLICY, policy), (RATE_LIMIT, now)] {
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(name, value);
            }
        }
    }
}
