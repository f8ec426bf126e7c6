//! `[redis]`: the Redis or Valkey over which data planes share rate limits.

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use service::config::{Invalid, Validate};

/// `[redis]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// Its primary's URL, `redis://:password@127.0.0.1:6379`, or `rediss://` with TLS. Without it each node keeps to its
    /// share of every limit.
    pub url: SecretString,
    /// How often it is asked.
    pub mode: LimitsMode,
    /// A request waits for it no longer than so many milliseconds; then limits are kept by each node's share for a while.
    pub timeout_ms: u64,
}

/// How often Redis is asked about limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitsMode {
    /// For a batch of permits, sized by the rate of late: few requests wait for it.
    #[default]
    Lease,
    /// On every request.
    Strict,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self { url: SecretString::default(), mode: LimitsMode::Lease, timeout_ms: 100 }
    }
}

impl RedisConfig {
    /// Whether there is one.
    pub(crate) fn is_configured(&self) -> bool {
        !self.url.expose_secret().is_empty()
    }
}

impl Validate for RedisConfig {
    fn validate(&self) -> Result<(), Invalid> {
        if self.is_configured() && redis::Client::open(self.url.expose_secret()).is_err() {
            return Err(Invalid::new("url", "must be a URL such as redis://127.0.0.1:6379"));
        }
        if !(1..=10_000).contains(&self.timeout_ms) {
            return Err(Invalid::new("timeout_ms", "must be from 1 to 10000"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_and_named() {
        let bad = |change: fn(&mut RedisConfig)| {
            let mut config = RedisConfig::default();
            change(&mut config);
            config.validate().map_err(|error| error.to_string())
        };
        assert!(bad(|_| {}).is_ok(), "it may be left out");
        assert!(bad(|it| it.url = "redis://:secret@127.0.0.1:6379/1".into()).is_ok());
        assert!(bad(|it| it.url = "rediss://cache.example".into()).is_ok(), "TLS is built in");
        let refused = bad(|it| it.url = "http://secret@127.0.0.1".into()).unwrap_err();
        assert!(refused.contains("url") && !refused.contains("secret"), "{refused}");
        assert!(bad(|it| it.timeout_ms = 0).unwrap_err().contains("timeout_ms"));
    }
}
