//! The audit trail: what was done, by whom, in chains that show every later change.
//!
//! A record's hash goes over its payload's digest and the hash before it, so that whoever trusts one hash can check all
//! before it. Signed checkpoints say which hash to trust. Nothing here reads a disk or a clock.

mod checkpoint;
mod event;
mod record;
mod verify;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::TenantId;

pub use checkpoint::{Checkpoint, MalformedPublicKey, PublicKey, SigningKeys};
pub use event::{Batch, BatchAnswer, Event, MAX_BATCH, MAX_NAMES, Notice, Noticed};
pub use record::{Digest, MalformedDigest, Record};
pub use verify::{Fault, Verdict, Verifier};

/// What a principal needs to read its tenant's own trail. Freehold's, in addition to the product's own scopes.
pub const READ_SCOPE: &str = "audit:read";

const PLATFORM: &str = "platform";

/// One line of records, each bound to the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Chain {
    /// What is of no tenant alone.
    Platform,
    /// What was done to a tenant, and in its name.
    Tenant(TenantId),
}

/// The text names no chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no chain: write `platform` or a tenant's id")]
pub struct MalformedChain;

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform => f.write_str(PLATFORM),
            Self::Tenant(tenant) => tenant.fmt(f),
        }
    }
}

impl FromStr for Chain {
    type Err = MalformedChain;

    fn from_str(text: &str) -> Result<Self, MalformedChain> {
        if text == PLATFORM {
            return Ok(Self::Platform);
        }
        text.parse().map(Self::Tenant).map_err(|_| MalformedChain)
    }
}

impl TryFrom<String> for Chain {
    type Error = MalformedChain;

    fn try_from(text: String) -> Result<Self, MalformedChain> {
        text.parse()
    }
}

impl From<Chain> for String {
    fn from(chain: Chain) -> Self {
        chain.to_string()
    }
}
