//! The control plane as a node calls it: feed, routes, goodbye. Bounded in time and in size.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use tenancy::TenantId;
use tenancy::audit::{Batch, BatchAnswer};
use tenancy::feed::{FeedAnswer, FeedRequest, KeyUses, RouteAnswer, RouteQuery};
use tenancy::id::NodeId;

use crate::config::ControlConfig;

const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(5);
/// Most bytes of an answer: a full page of the largest routes.
const LARGEST: usize = 256 * 1024 * 1024;

/// A client of one control plane; clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    client: Client,
    base: Arc<str>,
    token: SecretString,
}

/// Why the control plane could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlError {
    /// No connection, or no answer in time.
    #[error("the control plane does not answer: if it runs, check `control.url`")]
    Unreachable(#[from] reqwest::Error),
    /// It understood, and cannot answer now. Address and token are right, as far as can be told.
    #[error("the control plane answered {0}: it cannot answer now, and its own log and /readyz say why")]
    Unavailable(StatusCode),
    /// It refused; a wrong token, most likely.
    #[error("the control plane answered {0}: check `control.url` and `control.node_token`")]
    Refused(StatusCode),
    /// Its answer is not understood.
    #[error("the control plane's answer is not understood: {0}")]
    NotUnderstood(#[from] serde_json::Error),
    /// Its answer is larger than any should be.
    #[error("the control plane's answer is too large")]
    TooLarge,
    /// Its feed was not heard yet, so that no answer could be judged.
    #[error("the control plane was not heard yet")]
    NotHeard,
    /// It answered, and did not take what it was brought.
    #[error("the control plane did not take what it was brought")]
    NotTaken,
    /// The feed was faster, each time.
    #[error("the tenant changes faster than it can be asked for")]
    Overtaken,
}

impl ControlError {
    /// By the status of an answer that is no success.
    fn of(status: StatusCode) -> Self {
        let may_pass =
            status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        if may_pass { Self::Unavailable(status) } else { Self::Refused(status) }
    }
}

impl Control {
    pub(crate) fn new(config: &ControlConfig) -> Result<Self, ControlError> {
        let client = Client::builder()
            .connect_timeout(CONNECT)
            // The control plane is near, whatever proxy the environment names.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let base = config.url.trim_end_matches('/').into();
        Ok(Self { client, base, token: config.node_token.clone() })
    }

    pub(super) async fn feed(&self, request: &FeedRequest) -> Result<FeedAnswer, ControlError> {
        let patience = Duration::from_secs(request.wait) + ANSWER;
        let call = self.client.post(format!("{}/v1/feed", self.base)).json(request).timeout(patience);
        self.call(call).await
    }

    pub(super) async fn route(&self, query: &RouteQuery) -> Result<RouteAnswer, ControlError> {
        let named = [
            ("key", query.key.as_ref().map(ToString::to_string)),
            ("tenant", query.tenant.as_ref().map(ToString::to_string)),
            ("slug", query.slug.clone()),
            ("host", query.host.clone()),
            ("issuer", query.issuer.clone()),
        ];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
        // A host comes from whoever sends a request.
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(named).finish();
        let call = self.client.get(format!("{}/v1/routes?{query}", self.base)).timeout(ANSWER);
        self.call(call).await
    }

    pub(crate) async fn tell_key_uses(&self, uses: &KeyUses) -> Result<(), ControlError> {
        let call = self.client.post(format!("{}/v1/key-uses", self.base)).json(uses).timeout(ANSWER);
        let status = call.bearer_auth(self.token.expose_secret()).send().await?.status();
        if status.is_success() { Ok(()) } else { Err(ControlError::of(status)) }
    }

    pub(super) async fn goodbye(&self, node: NodeId) -> Result<(), ControlError> {
        let call = self.client.delete(format!("{}/v1/nodes/{node}", self.base)).timeout(ANSWER);
        let status = call.bearer_auth(self.token.expose_secret()).send().await?.status();
        if status.is_success() || status == StatusCode::NOT_FOUND { Ok(()) } else { Err(ControlError::of(status)) }
    }

    /// Brings a batch of what was noticed.
    pub(crate) async fn bring(&self, batch: &Batch) -> Result<BatchAnswer, ControlError> {
        let call = self.client.post(format!("{}/v1/audit/batches", self.base)).json(batch).timeout(ANSWER);
        self.call(call).await
    }

    /// A page of a tenant's own audit trail.
    pub(crate) async fn trail<T: DeserializeOwned>(
        &self,
        tenant: TenantId,
        limit: Option<u64>,
        cursor: Option<&str>,
    ) -> Result<T, ControlError> {
        let tenant = tenant.to_string();
        let limit = limit.map(|limit| limit.to_string());
        let named = [("tenant", Some(tenant.as_str())), ("limit", limit.as_deref()), ("cursor", cursor)];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(named).finish();
        let url = format!("{}/v1/audit/trail?{query}", self.base);
        self.call(self.client.get(url).timeout(ANSWER)).await
    }

    async fn call<T: DeserializeOwned>(&self, call: RequestBuilder) -> Result<T, ControlError> {
        let mut response = call.bearer_auth(self.token.expose_secret()).send().await?;
        if !response.status().is_success() {
            return Err(ControlError::of(response.status()));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if bytes.len() + chunk.len() > LARGEST {
                return Err(ControlError::TooLarge);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(serde_json::from_slice(&bytes)?)
    }
}
