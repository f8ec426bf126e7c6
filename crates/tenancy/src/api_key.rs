//! API keys: `fh_<id>_<secret>`.
//!
//! The id finds the key, the secret proves it. Only a digest of the secret is ever stored. The secret has 256 random
//! bits, so that one plain SHA-256 is a sound digest: there is nothing to guess.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use utoipa::ToSchema;

const PREFIX: &str = "fh_";
const ID_LENGTH: usize = 20;
const SECRET_BYTES: usize = 32;
/// 32 bytes in base64 without padding.
const SECRET_LENGTH: usize = 43;

/// The public half of an API key: 20 characters of `[a-z2-7]`, 100 random bits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct KeyId(Box<str>);

/// The text is not of the form of an API key. It deliberately says no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an API key: it has the form fh_<id>_<secret>")]
pub struct MalformedKey;

impl KeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = MalformedKey;

    fn from_str(text: &str) -> Result<Self, MalformedKey> {
        let well_formed = text.len() == ID_LENGTH && all(text, |b| matches!(b, b'a'..=b'z' | b'2'..=b'7'));
        if well_formed { Ok(Self(text.into())) } else { Err(MalformedKey) }
    }
}

impl TryFrom<String> for KeyId {
    type Error = MalformedKey;

    fn try_from(text: String) -> Result<Self, MalformedKey> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0.into()
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A whole API key, as its holder sends it.
#[derive(Clone)]
pub struct ApiKey {
    id: KeyId,
    secret: SecretString,
}

impl ApiKey {
    /// A new key from the given randomness, which must be cryptographic.
    pub fn generate(rng: &mut impl rand::CryptoRng) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut id = [0u8; ID_LENGTH];
        rng.fill_bytes(&mut id);
        let id: String = id.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect();
        let mut secret = [0u8; SECRET_BYTES];
        rng.fill_bytes(&mut secret);
        Self { id: KeyId(id.into()), secret: URL_SAFE_NO_PAD.encode(secret).into() }
    }

    /// The public half.
    pub const fn id(&self) -> &KeyId {
        &self.id
    }

    /// What is stored of the secret.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest(Sha256::digest(self.secret.expose_secret().as_bytes()).into())
    }

    /// The key as its holder must send it. For the one answer that tells it, and nothing else.
    pub fn reveal(&self) -> SecretString {
        self.reveal_as(PREFIX)
    }

    /// As [`ApiKey::reveal`], for a credential of another kind that is made alike and begins otherwise.
    pub fn reveal_as(&self, prefix: &str) -> SecretString {
        format!("{prefix}{}_{}", self.id, self.secret.expose_secret()).into()
    }

    /// Reads a credential that is made like a key and begins with `prefix`.
    pub fn parse_as(prefix: &str, text: &str) -> Result<Self, MalformedKey> {
        let (id, secret) = text.strip_prefix(prefix).and_then(|rest| rest.split_once('_')).ok_or(MalformedKey)?;
        let well_formed =
            secret.len() == SECRET_LENGTH && all(secret, |b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if well_formed { Ok(Self { id: id.parse()?, secret: secret.into() }) } else { Err(MalformedKey) }
    }
}

impl FromStr for ApiKey {
    type Err = MalformedKey;

    fn from_str(text: &str) -> Result<Self, MalformedKey> {
        Self::parse_as(PREFIX, text)
    }
}

/// Whether all bytes are so. It looks at each: without a way out early the processor compares many at a time.
fn all(text: &str, is_so: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(true, |all, byte| all & is_so(byte))
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).field("secret", &"[redacted]").finish()
    }
}

/// SHA-256 of a key's secret. Compared in constant time.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct KeyDigest([u8; 32]);

impl PartialEq for KeyDigest {
    fn eq(&self, other: &Self) -> bool {
        // In words of 8 bytes: as constant in time as byte by byte, and in an eighth of it.
        let words = |digest: &Self| -> [u64; 4] {
            std::array::from_fn(|at| u64::from_le_bytes(std::array::from_fn(|byte| digest.0[8 * at + byte])))
        };
        words(self).ct_eq(&words(other)).into()
    }
}

impl Eq for KeyDigest {}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest([redacted])")
    }
}

impl From<KeyDigest> for String {
    fn from(digest: KeyDigest) -> Self {
        URL_SAFE_NO_PAD.encode(digest.0)
    }
}

impl TryFrom<String> for KeyDigest {
    type Error = MalformedKey;

    fn try_from(text: String) -> Result<Self, MalformedKey> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| MalformedKey)?;
        bytes.try_into().map(Self).map_err(|_| MalformedKey)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn digests_that_differ_in_any_byte_are_not_the_same() {
        let digest = KeyDigest(std::array::from_fn(|at| u8::try_from(at).unwrap()));
        assert!(digest == KeyDigest(digest.0));
        for at in 0..digest.0.len() {
            let mut other = digest;
            other.0[at] ^= 0x80;
            assert!(other != digest, "byte {at}");
        }
    }

    #[test]
    fn a_key_with_any_other_character_is_none() {
        let key = ApiKey::generate(&mut StdRng::seed_from_u64(7)).reveal();
        let key = key.expose_secret();
        for at in 0..key.len() {
            let changed = format!("{}~{}", &key[..at], &key[at + 1..]);
            assert!(changed.parse::<ApiKey>().is_err(), "character {at}");
        }
    }

    proptest! {
        #[test]
        fn a_key_is_read_back_and_its_debug_keeps_the_secret(seed: u64) {
            let key = ApiKey::generate(&mut StdRng::seed_from_u64(seed));
            let text = key.reveal();
            let read: ApiKey = text.expose_secret().parse().unwrap();
            prop_assert_eq!(read.id(), key.id());
            prop_assert!(read.digest() == key.digest());
            let print = format!("{read:?}");
            prop_assert!(!print.contains(key.secret.expose_secret()));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,120}") {
            let _ = text.parse::<ApiKey>();
        }

        #[test]
        fn a_changed_secret_has_another_digest(a: u64, b: u64) {
            prop_assume!(a != b);
            let one = ApiKey::generate(&mut StdRng::seed_from_u64(a));
            let two = ApiKey::generate(&mut StdRng::seed_from_u64(b));
            prop_assert!(one.digest() != two.digest());
        }
    }
}
