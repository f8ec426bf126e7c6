//! Checkpoints: signed words on how far a chain had come. Ed25519.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Chain, Digest};
use crate::seal::{InvalidKeyRing, KeyRingConfig};

/// First line of all that is signed.
const FORMAT: &str = "freehold-audit-checkpoint-1";

/// A signed word: the record of this number has this hash, and so all before it are what they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// Of which chain.
    #[schema(value_type = String)]
    pub chain: Chain,
    /// The number of the newest record.
    pub seq: u64,
    /// Its hash.
    pub hash: Digest,
    /// When it was signed.
    pub at: DateTime<Utc>,
    /// The key that signed it: the first 16 hexadecimal digits of the public key's SHA-256.
    pub key: String,
    /// Ed25519, in base64.
    pub signature: String,
}

impl Checkpoint {
    fn signed_text(chain: Chain, seq: u64, hash: Digest, at: DateTime<Utc>) -> String {
        let at = at.to_rfc3339_opts(SecondsFormat::Micros, true);
        format!("{FORMAT}\n{chain}\n{seq}\n{hash}\n{at}")
    }

    /// Whether this key signed it.
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let Ok(signature) = STANDARD.decode(&self.signature) else { return false };
        let text = Self::signed_text(self.chain, self.seq, self.hash, self.at);
        UnparsedPublicKey::new(&ED25519, key.0).verify(text.as_bytes(), &signature).is_ok()
    }
}

/// What signatures are checked with: 32 bytes, in base64. It is no secret; where it came from must be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// The text is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no public key: it is 32 bytes in base64, as `freehold audit key` prints it")]
pub struct MalformedPublicKey;

impl PublicKey {
    /// As checkpoints name it.
    pub fn id(&self) -> String {
        let digest = Digest::of(&self.0).to_string();
        digest[..16].to_owned()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl FromStr for PublicKey {
    type Err = MalformedPublicKey;

    fn from_str(text: &str) -> Result<Self, MalformedPublicKey> {
        let bytes = STANDARD.decode(text.trim()).map_err(|_| MalformedPublicKey)?;
        bytes.try_into().map(Self).map_err(|_| MalformedPublicKey)
    }
}

/// The keys that checkpoints are signed with: one signs, the others are remembered for what they signed.
pub struct SigningKeys {
    primary: Ed25519KeyPair,
    public: Vec<PublicKey>,
}

impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SigningKeys {
    /// The configured keys, each a seed of 32 random bytes in base64.
    pub fn new(config: &KeyRingConfig) -> Result<Self, InvalidKeyRing> {
        let mut pairs = BTreeMap::new();
        for (id, seed) in &config.keys {
            let bad = || InvalidKeyRing::BadKey(id.clone());
            let seed = STANDARD.decode(seed.expose_secret().trim()).map_err(|_| bad())?;
            pairs.insert(id.clone(), Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| bad())?);
        }
        let public = pairs.values().map(public_of).collect();
        let primary = pairs.remove(&config.primary).ok_or_else(|| InvalidKeyRing::NoPrimary(config.primary.clone()))?;
        Ok(Self { primary, public })
    }

    /// What the signatures of all of them are checked with.
    pub fn public(&self) -> &[PublicKey] {
        &self.public
    }

    /// Signs how far a chain has come. The moment is kept to the microsecond.
    pub fn sign(&self, chain: Chain, seq: u64, hash: Digest, at: DateTime<Utc>) -> Checkpoint {
        let text = Checkpoint::signed_text(chain, seq, hash, at);
        let signature = STANDARD.encode(self.primary.sign(text.as_bytes()));
        Checkpoint { chain, seq, hash, at, key: public_of(&self.primary).id(), signature }
    }
}

fn public_of(pair: &Ed25519KeyPair) -> PublicKey {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(pair.public_key().as_ref());
    PublicKey(bytes)
}
