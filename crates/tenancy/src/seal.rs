//! Secrets at rest: database URLs encrypted with a ring of keys.
//!
//! A sealed text names its key in front, so that keys can be changed one text at a time. What it was sealed *for*
//! (purpose, subject and generation) is authenticated: moved to another row, it does not open.
//! XChaCha20-Poly1305: its 192-bit nonces may be random without bound on the number of texts.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use rand::CryptoRng;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// First field of every sealed text, and part of what is authenticated.
const FORMAT: &str = "fh1";
const NONCE_BYTES: usize = 24;
/// Longest key id, in bytes.
const MAX_KEY_ID: usize = 32;
/// Longest text that is opened, in bytes: a sealed URL is far smaller.
const MAX_SEALED: usize = 8_192;

/// What a secret is for. Each purpose has a ring of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A tenant's database URL. Data planes can open it.
    TenantUrl,
    /// A server's admin URL. Only control planes can open it.
    ServerAdminUrl,
    /// The URL of a database that has no tenant yet. Only control planes can open it.
    WarmUrl,
    /// The URL of a node's anchor session on a server. Data planes can open it.
    AnchorUrl,
    /// A recorded answer that may hold a new key's secret. Only control planes can open it.
    RecordedAnswer,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::TenantUrl => "tenant-url",
            Self::ServerAdminUrl => "server-admin-url",
            Self::WarmUrl => "warm-url",
            Self::AnchorUrl => "anchor-url",
            Self::RecordedAnswer => "recorded-answer",
        }
    }
}

/// For whom a text is sealed: it opens for nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject {
    /// What it is for.
    pub purpose: Purpose,
    /// Whose it is.
    pub id: Uuid,
    /// Which generation of it.
    pub generation: u64,
}

/// `fh1.<key id>.<base64 of nonce and ciphertext>`. Safe to store; still not for logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Sealed(String);

impl Sealed {
    /// A sealed text as it was stored. Whether it opens is seen when it is opened.
    pub fn from_stored(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text to store.
    pub fn as_stored(&self) -> &str {
        &self.0
    }

    /// The id of the key that sealed it.
    pub fn key_id(&self) -> Option<&str> {
        self.fields().map(|(key, _)| key)
    }

    fn fields(&self) -> Option<(&str, &str)> {
        self.0.strip_prefix(FORMAT)?.strip_prefix('.')?.split_once('.')
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed(key {})", self.key_id().unwrap_or("unknown"))
    }
}

/// Why a sealed text does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not the form of a sealed text.
    #[error("the sealed text is damaged: restore it from a backup or rotate the credentials")]
    Malformed,
    /// Sealed by a key that this ring lacks.
    #[error("the sealed text names key {key:?}, which the key ring lacks: add it to the configuration")]
    UnknownKey {
        /// The id that the text names.
        key: String,
    },
    /// Sealed for another subject or generation, or altered.
    #[error("the sealed text was made for another subject, or was altered")]
    Refused,
}

/// A key ring is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeyRing {
    /// The primary is not among the keys.
    #[error("primary names key {0:?}, which keys lacks: add it or name another")]
    NoPrimary(String),
    /// A key is not 32 bytes of base64.
    #[error("key {0:?} is not 32 bytes in base64: make one with `head -c 32 /dev/urandom | base64`")]
    BadKey(String),
    /// A key's id cannot stand in a sealed text.
    #[error("key id {0:?} is not 1 to {MAX_KEY_ID} characters of a-z, 0-9, - and _")]
    BadId(String),
}

/// A key ring as configuration gives it.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRingConfig {
    /// The id of the key that seals.
    pub primary: String,
    /// All keys that open: id to 32 bytes in base64.
    #[serde(default)]
    pub keys: BTreeMap<String, SecretString>,
}

impl fmt::Debug for KeyRingConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.keys().collect();
        f.debug_struct("KeyRingConfig").field("primary", &self.primary).field("keys", &ids).finish()
    }
}

/// Keys that open, and the one that seals.
#[derive(Clone)]
pub struct KeyRing {
    primary: String,
    ciphers: BTreeMap<String, XChaCha20Poly1305>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.ciphers.keys().collect();
        f.debug_struct("KeyRing").field("primary", &self.primary).field("keys", &ids).finish()
    }
}

impl KeyRing {
    /// A ring of the configured keys.
    pub fn new(config: &KeyRingConfig) -> Result<Self, InvalidKeyRing> {
        let mut ciphers = BTreeMap::new();
        for (id, key) in &config.keys {
            let well_formed = (1..=MAX_KEY_ID).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
            if !well_formed {
                return Err(InvalidKeyRing::BadId(id.clone()));
            }
            let bytes = STANDARD.decode(key.expose_secret().trim()).map_err(|_| InvalidKeyRing::BadKey(id.clone()))?;
            let cipher = XChaCha20Poly1305::new_from_slice(&bytes).map_err(|_| InvalidKeyRing::BadKey(id.clone()))?;
            ciphers.insert(id.clone(), cipher);
        }
        if !ciphers.contains_key(&config.primary) {
            return Err(InvalidKeyRing::NoPrimary(config.primary.clone()));
        }
        Ok(Self { primary: config.primary.clone(), ciphers })
    }

    /// The id of the key that seals.
    pub fn primary(&self) -> &str {
        &self.primary
    }

    /// The ids of all keys that open.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.ciphers.keys().map(String::as_str)
    }

    /// What every text begins with that this key has sealed.
    pub fn prefix_of(id: &str) -> String {
        format!("{FORMAT}.{id}.")
    }

    /// Encrypts `secret` for `subject` under the primary key, with a random nonce from `rng`.
    pub fn seal(&self, subject: Subject, secret: &SecretString, rng: &mut impl CryptoRng) -> Sealed {
        let mut nonce = [0u8; NONCE_BYTES];
        rng.fill_bytes(&mut nonce);
        let aad = associated_data(subject);
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: aad.as_bytes() };
        let ciphertext = self.ciphers[&self.primary]
            .encrypt(&XNonce::from(nonce), payload)
            .expect("XChaCha20-Poly1305 fails only past 256 GiB");
        let mut bytes = nonce.to_vec();
        bytes.extend_from_slice(&ciphertext);
        Sealed(format!("{FORMAT}.{}.{}", self.primary, URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Decrypts what was sealed for exactly this subject and generation.
    pub fn open(&self, subject: Subject, sealed: &Sealed) -> Result<SecretString, SealError> {
        if sealed.0.len() > MAX_SEALED {
            return Err(SealError::Malformed);
        }
        let (key, text) = sealed.fields().ok_or(SealError::Malformed)?;
        let cipher = self.ciphers.get(key).ok_or_else(|| SealError::UnknownKey { key: key.to_owned() })?;
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| SealError::Malformed)?;
        let (nonce, ciphertext) = bytes.split_first_chunk::<NONCE_BYTES>().ok_or(SealError::Malformed)?;
        let aad = associated_data(subject);
        let payload = Payload { msg: ciphertext, aad: aad.as_bytes() };
        let opened = cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| SealError::Refused)?;
        String::from_utf8(opened).map(Into::into).map_err(|_| SealError::Malformed)
    }
}

/// Format version, purpose, subject id and generation: none of them can contain a `/`, so no two subjects share a text.
fn associated_data(subject: Subject) -> String {
    format!("{FORMAT}/{}/{}/{}", subject.purpose.as_str(), subject.id, subject.generation)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn ring(primary: &str, ids: &[(&str, u8)]) -> KeyRing {
        let keys = ids.iter().map(|(id, byte)| ((*id).to_owned(), STANDARD.encode([*byte; 32]).into())).collect();
        KeyRing::new(&KeyRingConfig { primary: primary.to_owned(), keys }).unwrap()
    }

    fn subject(id: u128, generation: u64) -> Subject {
        Subject { purpose: Purpose::TenantUrl, id: Uuid::from_u128(id), generation }
    }

    #[test]
    fn a_text_sealed_by_an_old_key_still_opens_and_one_by_a_foreign_key_names_it() {
        let mut rng = StdRng::seed_from_u64(1);
        let old = ring("k1", &[("k1", 1)]);
        let sealed = old.seal(subject(7, 1), &"postgres://u:p@h/d".to_owned().into(), &mut rng);
        let both = ring("k2", &[("k1", 1), ("k2", 2)]);
        assert_eq!(both.open(subject(7, 1), &sealed).unwrap().expose_secret(), "postgres://u:p@h/d");
        let new = ring("k2", &[("k2", 2)]);
        assert_eq!(new.open(subject(7, 1), &sealed).unwrap_err(), SealError::UnknownKey { key: "k1".to_owned() });
    }

    #[test]
    fn a_bad_ring_is_refused_with_the_field() {
        let bad = |primary: &str, id: &str, key: &str| {
            let keys = [(id.to_owned(), key.to_owned().into())].into();
            KeyRing::new(&KeyRingConfig { primary: primary.to_owned(), keys }).unwrap_err()
        };
        let good = STANDARD.encode([1; 32]);
        assert_eq!(bad("k2", "k1", &good), InvalidKeyRing::NoPrimary("k2".to_owned()));
        assert_eq!(bad("k1", "k1", "c2hvcnQ="), InvalidKeyRing::BadKey("k1".to_owned()));
        assert_eq!(bad("k.1", "k.1", &good), InvalidKeyRing::BadId("k.1".to_owned()));
    }

    proptest! {
        #[test]
        fn opens_for_its_subject_and_generation_alone(text in "\\PC{0,200}", id: u128, other: u128, generation: u64, later: u64, seed: u64) {
            prop_assume!(id != other && generation != later);
            let ring = ring("k1", &[("k1", 1)]);
            let sealed = ring.seal(subject(id, generation), &text.clone().into(), &mut StdRng::seed_from_u64(seed));
            let opened = ring.open(subject(id, generation), &sealed).unwrap();
            prop_assert_eq!(opened.expose_secret(), text.as_str());
            prop_assert_eq!(ring.open(subject(other, generation), &sealed).unwrap_err(), SealError::Refused);
            prop_assert_eq!(ring.open(subject(id, later), &sealed).unwrap_err(), SealError::Refused);
            let admin = Subject { purpose: Purpose::ServerAdminUrl, ..subject(id, generation) };
            prop_assert_eq!(ring.open(admin, &sealed).unwrap_err(), SealError::Refused);
        }

        #[test]
        fn one_changed_character_is_seen(at in 0usize..60, seed: u64) {
            let ring = ring("k1", &[("k1", 1)]);
            let sealed = ring.seal(subject(1, 1), &"postgres://user:password@host/database".to_owned().into(), &mut StdRng::seed_from_u64(seed));
            let mut bytes = sealed.as_stored().as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let altered = Sealed::from_stored(String::from_utf8(bytes).unwrap());
            prop_assert!(ring.open(subject(1, 1), &altered).is_err());
        }

        #[test]
        fn no_text_makes_the_opener_panic(text in "(fh1\\.k1\\.)?\\PC{0,120}") {
            prop_assert!(ring("k1", &[("k1", 1)]).open(subject(1, 1), &Sealed::from_stored(text)).is_err());
        }
    }

    #[test]
    fn debug_prints_hold_no_key_and_no_ciphertext() {
        let config =
            KeyRingConfig { primary: "k1".into(), keys: [("k1".into(), STANDARD.encode([9; 32]).into())].into() };
        let ring = KeyRing::new(&config).unwrap();
        let sealed = ring.seal(subject(1, 1), &"planted".to_owned().into(), &mut StdRng::seed_from_u64(3));
        let prints = format!("{config:?} {ring:?} {sealed:?}");
        assert!(!prints.contains(&STANDARD.encode([9; 32])) && !prints.contains("planted"), "{prints}");
        assert!(!prints.contains(sealed.fields().unwrap().1), "{prints}");
    }
}
