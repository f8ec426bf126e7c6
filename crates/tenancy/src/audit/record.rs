//! Records: a payload, its digest, and the hash that binds it to the one before.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::{Chain, Event};

/// First line of all that is hashed for a chain.
const FORMAT: &str = "freehold-audit-1";

/// SHA-256, as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct Digest([u8; 32]);

/// The text is no digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no digest: it has 64 hexadecimal digits")]
pub struct MalformedDigest;

impl Digest {
    /// Of bytes as they are.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// What stands for the record before the first: it differs from chain to chain.
    pub fn before_first(chain: Chain) -> Self {
        Self::of(format!("{FORMAT}\n{chain}").as_bytes())
    }

    /// Of a record whose payload has this digest.
    pub(super) fn chained(chain: Chain, seq: u64, previous: Self, digest: Self) -> Self {
        Self::of(format!("{FORMAT}\n{chain}\n{seq}\n{previous}\n{digest}").as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.iter().fold(String::with_capacity(64), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        f.write_str(&text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = MalformedDigest;

    fn from_str(text: &str) -> Result<Self, MalformedDigest> {
        let is_sound = text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
        if !is_sound {
            return Err(MalformedDigest);
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| MalformedDigest)?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = MalformedDigest;

    fn try_from(text: String) -> Result<Self, MalformedDigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// One record of a chain. The digest goes over the payload's bytes as they are: reformatted JSON is another payload.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Record {
    /// Which chain.
    #[schema(value_type = String)]
    pub chain: Chain,
    /// Its number there, from 1, without gaps.
    pub seq: u64,
    /// The hash of the record before it.
    pub previous: Digest,
    /// SHA-256 of the payload's bytes.
    pub digest: Digest,
    /// SHA-256 over chain, number, `previous` and `digest`.
    pub hash: Digest,
    /// What happened.
    #[schema(value_type = Event)]
    pub payload: Box<RawValue>,
}

impl Record {
    /// The record that follows the one with the hash `previous`.
    pub fn following(chain: Chain, seq: u64, previous: Digest, event: &Event) -> Result<Self, serde_json::Error> {
        let payload = serde_json::value::to_raw_value(event)?;
        let digest = Digest::of(payload.get().as_bytes());
        Ok(Self { chain, seq, previous, digest, hash: Digest::chained(chain, seq, previous, digest), payload })
    }

    /// What happened.
    pub fn event(&self) -> Result<Event, serde_json::Error> {
        serde_json::from_str(self.payload.get())
    }

    /// Whether payload, digest and hash belong together. Whether it follows the record before it, the record before it
    /// must tell.
    pub fn is_whole(&self) -> bool {
        self.digest == Digest::of(self.payload.get().as_bytes())
            && self.hash == Digest::chained(self.chain, self.seq, self.previous, self.digest)
    }
}
