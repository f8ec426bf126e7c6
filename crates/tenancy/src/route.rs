//! All that a data plane needs of one tenant, bounded in size.
//!
//! A route is whole or absent: it is replaced, never patched, so a node can apply one in any order and any number of times.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::api_key::{KeyDigest, KeyId};
use crate::id::TenantId;
use crate::issuer::Issuer;
use crate::plan::Plan;
use crate::seal::{Purpose, Sealed, Subject};
use crate::slug::Slug;
use crate::status::Status;

/// Most keys that a tenant may have at once.
pub const MAX_KEYS: usize = 64;
/// Most custom hosts that a tenant may have.
pub const MAX_HOSTS: usize = 16;
/// Most configuration entries that a tenant may have.
pub const MAX_CONFIG_ENTRIES: usize = 64;
/// Longest configuration value, in bytes of JSON.
pub const MAX_CONFIG_VALUE: usize = 4_096;

/// Position in the registry's history. Revisions are given out in commit order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// Identity of a registry's history: revisions of different epochs cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Epoch(pub Uuid);

/// One API key as a data plane knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteKey {
    /// The public half, by which it is found.
    pub id: KeyId,
    /// What the presented secret is compared with.
    pub digest: KeyDigest,
    /// What the key's holder may do.
    pub scopes: Vec<String>,
    /// From when it no longer counts.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A tenant as data planes see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// The tenant.
    pub tenant: TenantId,
    /// The revision at which the tenant last changed.
    pub revision: Revision,
    /// Its name in host names, paths and headers.
    pub slug: Slug,
    /// Its custom hosts, lower case.
    pub hosts: Vec<String>,
    /// Where it is in its life.
    pub status: Status,
    /// Its limits.
    pub plan: Plan,
    /// Its configuration, for the product's handlers.
    pub config: BTreeMap<String, serde_json::Value>,
    /// Its API keys.
    pub keys: Vec<RouteKey>,
    /// Who else may say who calls it.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// Tokens issued before this count no longer. A data plane adds how far its issuers' clocks may be ahead.
    #[serde(default)]
    pub tokens_from: Option<DateTime<Utc>>,
    /// Since when it has its slug. None where a control plane of an older version says nothing of it.
    #[serde(default)]
    pub slug_since: Option<DateTime<Utc>>,
    /// How many of the product's migrations its database has.
    pub schema_version: u32,
    /// The server that its database is on.
    pub server: String,
    /// The number of its database URL.
    pub generation: u64,
    /// How often an operator had its connections replaced: those of an earlier number are closed. 0 where a control plane of an
    /// older version says nothing of it.
    #[serde(default)]
    pub reconnects: u64,
    /// Its database URL, sealed for this tenant and generation.
    pub sealed_url: Sealed,
}

impl Route {
    /// For whom the URL is sealed. A URL copied from another tenant's row does not open for it.
    pub const fn url_subject(&self) -> Subject {
        Subject { purpose: Purpose::TenantUrl, id: self.tenant.as_uuid(), generation: self.generation }
    }
}
