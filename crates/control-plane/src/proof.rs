//! Whose a custom host is: whoever can write into its DNS zone. A TXT record under it proves that.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData};
use service::problem::BoxError;

use crate::config::{DomainsConfig, Proof};

/// How long one name server is waited for; it is asked twice.
const ANSWER: Duration = Duration::from_secs(3);
/// Records at most that are told of.
const MOST_TOLD: usize = 5;

/// Looks whether hosts are proven, if they must be.
pub(crate) struct HostProofs {
    resolver: Option<TokioResolver>,
    base_domain: Option<String>,
}

/// What is to be seen under a host for it to be a tenant's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The name of a TXT record.
    pub(crate) name: String,
    /// Its text.
    pub(crate) value: String,
}

impl Challenge {
    pub(crate) fn of(host: &str, token: &str) -> Self {
        Self { name: format!("_freehold.{host}"), value: format!("freehold-domain={token}") }
    }
}

/// Why a host is not proven.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unproven {
    #[error("there is no TXT record of that name yet")]
    NoRecord,
    #[error("the TXT records there say other things: {0}")]
    Other(String),
    #[error("its name servers do not answer: {0}")]
    Unanswered(String),
}

impl HostProofs {
    pub(crate) fn new(config: &DomainsConfig) -> Result<Self, BoxError> {
        let resolver = match config.proof {
            Proof::None => None,
            Proof::Dns => Some(resolver(&config.name_servers)?),
        };
        Ok(Self { resolver, base_domain: config.base_domain.clone() })
    }

    /// Whether hosts must be proven before they lead to a tenant.
    pub(crate) fn are_needed(&self) -> bool {
        self.resolver.is_some()
    }

    /// Whether a host is the platform's own, or lies under it.
    pub(crate) fn is_ours(&self, host: &str) -> bool {
        let Some(base) = &self.base_domain else { return false };
        host.strip_suffix(base.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// Looks for the record.
    pub(crate) async fn see(&self, challenge: &Challenge) -> Result<(), Unproven> {
        let Some(resolver) = &self.resolver else { return Ok(()) };
        let unanswered = |error: &dyn std::fmt::Display| Unproven::Unanswered(error.to_string());
        let name = Name::from_ascii(format!("{}.", challenge.name)).map_err(|error| unanswered(&error))?;
        let answer = match resolver.txt_lookup(name).await {
            Ok(answer) => answer,
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => return Err(Unproven::NoRecord),
            Err(error) => return Err(unanswered(&error)),
        };
        let texts = answer.answers().iter().filter_map(|record| match &record.data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        });
        let texts: Vec<String> = texts.collect();
        if texts.iter().any(|text| text.trim() == challenge.value) {
            return Ok(());
        }
        if texts.is_empty() {
            return Err(Unproven::NoRecord);
        }
        let told = texts.iter().take(MOST_TOLD).map(|text| service::extract::short(text));
        Err(Unproven::Other(told.collect::<Vec<_>>().join("; ")))
    }
}

fn resolver(name_servers: &[SocketAddr]) -> Result<TokioResolver, BoxError> {
    let mut builder = if name_servers.is_empty() {
        let told = |error| {
            format!(
                "cannot read the system's name servers: {error}. Set `domains.name_servers`, or `domains.proof = \"none\"` where \
                 operators see to it whose hosts are"
            )
        };
        TokioResolver::builder_tokio().map_err(told)?
    } else {
        let servers = name_servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), servers.collect());
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options: &mut ResolverOpts = builder.options_mut();
    options.timeout = ANSWER;
    options.attempts = 2;
    // Whoever has just written a record asks again.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_under_the_base_domain_is_ours() {
        let proofs = HostProofs { resolver: None, base_domain: Some("pets.test".to_owned()) };
        for ours in ["pets.test", "acme.pets.test", "a.b.pets.test"] {
            assert!(proofs.is_ours(ours), "{ours}");
        }
        for other in ["otherpets.test", "pets.test.evil.test", "test"] {
            assert!(!proofs.is_ours(other), "{other}");
        }
    }
}
