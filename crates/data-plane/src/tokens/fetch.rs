//! Asking an issuer for its keys: bounded in time and size, without redirects, and never into a private network unless that
//! was allowed. Tenants' issuers are described by others than who runs this.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use serde::Deserialize;
use tenancy::issuer::{check_url, is_public};

const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);
/// Most bytes of an answer.
const LARGEST: usize = 256 * 1024;
/// Keys at most that are read of an answer.
const MOST_KEYS: usize = 64;

/// Asks for keys.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    client: Client,
    allow_private: bool,
}

/// Why there is no answer, or none that is taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("the URL {0}")]
    Url(&'static str),
    #[error("it does not answer: {0}")]
    Unreachable(#[from] reqwest::Error),
    #[error("it answered {0}")]
    Refused(reqwest::StatusCode),
    #[error("its answer is larger than {LARGEST} bytes")]
    TooLarge,
    #[error("its answer is no set of keys: {0}")]
    NotUnderstood(#[from] serde_json::Error),
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

impl Fetcher {
    pub(super) fn new(allow_private: bool) -> Result<Self, reqwest::Error> {
        let mut builder = Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent("freehold");
        if !allow_private {
            builder = builder.https_only(true).dns_resolver(Arc::new(PublicNames));
        }
        Ok(Self { client: builder.build()?, allow_private })
    }

    /// The keys at this URL, of whatever kind they are; those that cannot be read are left out.
    pub(super) async fn keys(&self, url: &str) -> Result<Vec<Jwk>, FetchError> {
        // An address in the URL is not resolved, and is looked at here.
        let url = check_url(url, self.allow_private).map_err(FetchError::Url)?;
        let mut response = self.client.get(url).header("accept", "application/json").send().await?;
        if !response.status().is_success() {
            return Err(FetchError::Refused(response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if bytes.len() + chunk.len() > LARGEST {
                return Err(FetchError::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        let KeySet { keys } = serde_json::from_slice(&bytes)?;
        Ok(keys.into_iter().take(MOST_KEYS).filter_map(|key| serde_json::from_value(key).ok()).collect())
    }
}

/// Resolves names to public addresses alone. What is checked is what is dialled: a name cannot lead elsewhere in between.
#[derive(Debug)]
struct PublicNames;

impl Resolve for PublicNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(format!("{} leads into a private network", name.as_str()).into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}
