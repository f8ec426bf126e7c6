//! What passes between the planes: the feed that nodes follow, and single routes that they ask for.
//!
//! The feed is the tenants ordered by revision, so it is compacted by nature: a tenant that changed twice appears once.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api_key::KeyId;
use crate::id::{NodeId, TenantId};
use crate::route::{Epoch, Revision, Route};
use crate::share::{Share, ShareReport};

/// Longest wait of one feed request, in seconds.
pub const MAX_WAIT_SECONDS: u64 = 25;
/// Most items in one answer; the rest follows at once in the next.
pub const MAX_ITEMS: u64 = 500;

/// "What happened after this revision?"
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FeedRequest {
    /// Who asks.
    pub node: NodeId,
    /// The history it follows; none before its first answer.
    pub epoch: Option<Epoch>,
    /// The position of its last answer.
    pub after: Revision,
    /// The newest revision that any answer told the node of. Beyond the registry's newest it means nothing there: the answer
    /// is a reset.
    pub heard: Revision,
    /// The node serves and dials nothing older than this.
    pub applied: Revision,
    /// How long to wait for news, in seconds.
    pub wait: u64,
    /// How many nodes there are, as far as this one knows: another number is news.
    #[serde(default)]
    pub nodes: u32,
    /// What was counted of the canaries that the answers before named, and not told yet; at most 100 of them.
    // Not sent where there are none: a control plane that names none may be of a version that knows of none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub canaries: Vec<CanaryCount>,
    /// The process that asks: another one after each start of the node. Shares of servers are a process' own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Uuid>,
    /// What the process says of its shares, each server once; at most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 1_000)]
    pub shares: Vec<ShareReport>,
}

impl FeedRequest {
    /// What a node asks that has heard nothing yet, and waits for nothing.
    #[must_use]
    pub fn first(node: NodeId) -> Self {
        let (epoch, nothing, holder) = (None, Revision(0), None);
        let (canaries, shares) = (Vec::new(), Vec::new());
        Self {
            node,
            epoch,
            after: nothing,
            heard: nothing,
            applied: nothing,
            wait: 0,
            nodes: 0,
            canaries,
            holder,
            shares,
        }
    }

    /// The newest revision that the node says to have heard of.
    #[must_use]
    pub fn newest(&self) -> Revision {
        self.after.max(self.heard)
    }
}

/// Most servers that a node reports its shares of.
pub const MAX_SHARES: usize = 1_000;

/// Most canaries that are counted at once.
pub const MAX_CANARIES: usize = 100;

/// How a canary of a rollout fared since it was last told. Of an answer that is lost on its way it is told twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryCount {
    /// The canary.
    pub tenant: TenantId,
    /// Requests that were answered.
    pub requests: u64,
    /// Those of them that were answered with a 5xx.
    pub errors: u64,
}

/// One tenant that changed. It replaces all that the node held of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FeedItem {
    /// Whose news it is.
    pub tenant: TenantId,
    /// When it changed.
    pub revision: Revision,
    /// The whole route; none when there is nothing to route any more.
    pub route: Option<Route>,
}

/// News, or none after the wait.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct FeedAnswer {
    /// The registry's history.
    pub epoch: Epoch,
    /// Where the node continues: it has heard of everything up to here.
    pub position: Revision,
    /// The node's position means nothing here: it is of another history, or beyond the newest revision of this one. The node
    /// starts at `position`, also where that is behind its own, and reloads all that it holds.
    pub reset: bool,
    /// The registry's newest revision, which may be beyond `position`.
    #[serde(default)]
    pub head: Revision,
    /// A node that has heard nothing for this many seconds serves no longer: others stop waiting for it then.
    pub stale_after_seconds: u64,
    /// How many nodes were heard of late: a limit that they do not share over Redis is divided by it.
    #[serde(default = "one")]
    pub nodes: u32,
    /// The ids of the keys that tenants' URLs may be sealed with: a node whose ring lacks one says so.
    #[serde(default)]
    pub keys: Vec<String>,
    /// Tenants whose requests are to be counted, and nobody else's: canaries that a rollout waits for. At most 100.
    #[serde(default)]
    pub canaries: Vec<TenantId>,
    /// The node's shares of the servers' connections, all of them.
    #[serde(default)]
    pub shares: Vec<Share>,
    /// What changed, oldest first.
    pub items: Vec<FeedItem>,
}

impl FeedAnswer {
    /// Nothing happened: to one node alone, of a control plane without keys or rollouts.
    #[must_use]
    pub const fn without_news(epoch: Epoch, position: Revision, stale_after_seconds: u64) -> Self {
        Self {
            epoch,
            position,
            reset: false,
            head: position,
            stale_after_seconds,
            nodes: one(),
            keys: Vec::new(),
            canaries: Vec::new(),
            shares: Vec::new(),
            items: Vec::new(),
        }
    }
}

const fn one() -> u32 {
    1
}

/// "What is the route of the tenant with this key, id, slug, custom host or issuer?" Exactly one is named.
#[derive(Clone, Debug, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct RouteQuery {
    /// The id of an API key.
    #[param(value_type = Option<String>)]
    pub key: Option<KeyId>,
    /// A tenant's id.
    pub tenant: Option<TenantId>,
    /// A slug, or a text that is none.
    pub slug: Option<String>,
    /// A custom host.
    pub host: Option<String>,
    /// What an issuer's tokens call it.
    pub issuer: Option<String>,
}

/// What a [`RouteQuery`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The id of an API key.
    Key(KeyId),
    /// A tenant's id.
    Tenant(TenantId),
    /// A slug, or a text that is none.
    Slug(String),
    /// A custom host, or a text that is none.
    Host(String),
    /// An issuer, or a text that is none.
    Issuer(String),
}

impl RouteQuery {
    /// What it names; nothing unless it is exactly one thing.
    pub fn asked(self) -> Option<Asked> {
        let Self { key, tenant, slug, host, issuer } = self;
        let named = [
            key.map(Asked::Key),
            tenant.map(Asked::Tenant),
            slug.map(Asked::Slug),
            host.map(Asked::Host),
            issuer.map(Asked::Issuer),
        ];
        let mut named = named.into_iter().flatten();
        named.next().filter(|_| named.next().is_none())
    }
}

/// Most keys in one [`KeyUses`].
pub const MAX_KEY_USES: usize = 1_000;

/// "These keys were used."
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyUses {
    /// Each key once, at most 1,000 of them.
    #[schema(max_items = 1_000)]
    pub uses: Vec<KeyUse>,
}

/// The newest use of a key that a node knows of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyUse {
    /// The key.
    pub key: KeyId,
    /// When, to the minute.
    pub at: DateTime<Utc>,
}

/// One route, or none.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RouteAnswer {
    /// The registry's history.
    pub epoch: Epoch,
    /// The route is at least as new as this: the head before it was read.
    pub as_of: Revision,
    /// The route, if there is one.
    pub route: Option<Route>,
}
