//! What a record says, and what data planes notice and send to be recorded.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::id::{NodeId, TenantId};

/// Most events of one batch.
pub const MAX_BATCH: usize = 500;
/// Most names of one event that are kept.
pub const MAX_NAMES: usize = 8;

/// One thing that happened: the payload of a record. What does not apply is left out.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Names it. Ids sort by the time of the recording.
    pub id: Uuid,
    /// When it happened, by the clock of whoever noticed it.
    pub at: DateTime<Utc>,
    /// What was done: `tenant.suspended`, `security.cross-tenant-attempt`.
    pub action: String,
    /// Who did it: an operator's name, `control-plane`, a principal's subject, `unknown`.
    pub actor: String,
    /// The address that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The request that did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The tenant that it is about, or whose principal did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The tenant that an outsider aimed at, if there is such a tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TenantId>,
    /// What of no tenant it is about: a server's name, a node's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The names that a request had for a tenant, as they came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<String>,
    /// What was changed, as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub before: Option<Value>,
    /// What was changed, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub after: Option<Value>,
    /// The data plane that noticed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// How often it happened, where that was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// More, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a data plane may notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Notice {
    /// A principal named a tenant that it does not belong to.
    CrossTenantAttempt,
    /// Many bad credentials from one address.
    BadCredentials,
    /// A principal of a tenant that is not served.
    SuspendedRefused,
    /// A database that is not proven to be its tenant's, or whose URL is not.
    DatabaseRefused,
    /// A tenant came to one of its plan's limits, for the first time in a while.
    LimitHit,
    /// Background work took a session.
    BackgroundSession,
    /// Events that were dropped because the spool was full, or could not be written or read.
    EventsDropped,
    /// Of a version that is newer than this one.
    #[serde(other)]
    Other,
}

impl Notice {
    /// The action that is recorded.
    pub const fn action(self) -> &'static str {
        match self {
            Self::CrossTenantAttempt => "security.cross-tenant-attempt",
            Self::BadCredentials => "security.bad-credentials",
            Self::SuspendedRefused => "security.suspended-refused",
            Self::DatabaseRefused => "security.database-refused",
            Self::LimitHit => "security.limit-hit",
            Self::BackgroundSession => "background.session",
            Self::EventsDropped => "audit.events-dropped",
            Self::Other => "security.other",
        }
    }
}

/// What a data plane noticed. Who was aimed at is not known there: only names as they came.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Noticed {
    /// When.
    pub at: DateTime<Utc>,
    /// What.
    pub notice: Notice,
    /// The principal's subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The principal's own tenant, or the one that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The names that the request had for a tenant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<String>,
    /// How often, where it was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// More, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a data plane noticed, numbered so that it is recorded once.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Batch {
    /// Who noticed it.
    pub node: NodeId,
    /// The node's spool: numbers are of one spool, and a node that lost its folder has another.
    pub spool: Uuid,
    /// Batches of a spool are numbered upwards. One that was dropped leaves a gap.
    pub number: u64,
    /// At most 500.
    pub events: Vec<Noticed>,
}

/// What was taken in.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct BatchAnswer {
    /// The newest number of the spool that is recorded: this batch and all before it need not come again.
    pub taken: u64,
}
