//! Issuers' public keys, as their JWKS URLs show them: asked for when they are first needed, refreshed while they are used,
//! and kept through an outage of whoever shows them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Duration, Utc};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};

use super::fetch::Fetcher;
use crate::config::TokensConfig;

/// Sets of keys that are kept at most.
const MOST_SETS: u64 = 10_000;
/// How old a set may become before it is asked for again, in the background of a request that uses it.
const FRESH: Duration = Duration::minutes(5);
/// The least time between two questions for one set: tokens with invented key ids cost their issuer no more.
const BETWEEN: Duration = Duration::seconds(10);
/// Bytes of the shortest and the longest RSA modulus that is taken: 2048 bits are the least that is sound, and the time that
/// a longer one takes to verify is the sender's to choose.
const RSA_MODULUS: std::ops::RangeInclusive<usize> = 256..=512;

/// A public key that an issuer showed.
#[derive(Debug)]
pub(super) struct PublicKey {
    shown: Jwk,
    algorithm: Algorithm,
    decoding: DecodingKey,
    is_gone: AtomicBool,
}

impl PublicKey {
    /// A key for signatures of an algorithm that is taken here.
    fn of(shown: Jwk) -> Option<Self> {
        let algorithm = match &shown.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(it) if it.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(it) if it.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            _ => return None,
        };
        let common = &shown.common;
        let is_for_this = common.key_algorithm.is_none_or(|named| named.to_string() == format!("{algorithm:?}"));
        let is_for_signatures = common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let decoding = DecodingKey::from_jwk(&shown).ok()?;
        let is_sound = match decoding.kind() {
            jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. } => RSA_MODULUS.contains(&n.len()),
            jsonwebtoken::DecodingKeyKind::SecretOrDer(_) => true,
        };
        let is_taken = is_for_this && is_for_signatures && is_sound;
        is_taken.then(|| Self { shown, algorithm, decoding, is_gone: AtomicBool::new(false) })
    }

    pub(super) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(super) const fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    /// Whether its issuer shows it no longer.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }
}

/// The keys cannot be had, and none are kept.
#[derive(Debug)]
pub(super) struct Unreachable;

/// All issuers' keys; clones share them.
#[derive(Clone)]
pub(super) struct KeySets {
    sets: Cache<Arc<str>, Arc<KeySet>>,
    fetcher: Fetcher,
    fetches: Counter<u64>,
    keep: Duration,
}

/// The keys of one URL.
#[derive(Default)]
struct KeySet {
    held: RwLock<Held>,
    /// Held by whoever asks for them.
    asking: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Held {
    keys: Vec<Arc<PublicKey>>,
    fetched_at: Option<DateTime<Utc>>,
    tried_at: Option<DateTime<Utc>>,
}

type Found = Result<Option<Arc<PublicKey>>, Unreachable>;

impl KeySets {
    pub(super) fn new(config: &TokensConfig, meter: &Meter) -> Result<Self, reqwest::Error> {
        Ok(Self {
            sets: Cache::builder().max_capacity(MOST_SETS).eviction_policy(EvictionPolicy::lru()).build(),
            fetcher: Fetcher::new(config.allow_private_issuers)?,
            fetches: meter
                .u64_counter("data_plane_jwks_fetches")
                .with_description("Questions for issuers' keys, by outcome.")
                .build(),
            keep: Duration::seconds(config.keep_keys_seconds.into()),
        })
    }

    /// The key of this id and algorithm that this URL shows; without an id, the only one of the algorithm.
    pub(super) async fn find(&self, url: &str, id: Option<&str>, algorithm: Algorithm, now: DateTime<Utc>) -> Found {
        let set = match self.sets.get(url) {
            Some(set) => set,
            None => self.sets.get_with(url.into(), Arc::default),
        };
        let look = || set.look(id, algorithm, now, self.keep);
        if let Some(found) = look() {
            if set.is_due(now) {
                self.refresh(url, &set, now);
            }
            return found;
        }
        let _asking = set.asking.lock().await;
        // Whoever came before may have asked.
        if let Some(found) = look() {
            return found;
        }
        self.ask(url, &set, now).await;
        look().unwrap_or(Err(Unreachable))
    }

    /// Asks in the background, unless somebody does. It ends with the answer or the time that is left for one.
    fn refresh(&self, url: &str, set: &Arc<KeySet>, now: DateTime<Utc>) {
        let Ok(asking) = Arc::clone(&set.asking).try_lock_owned() else { return };
        let (sets, set, url) = (self.clone(), Arc::clone(set), url.to_owned());
        tokio::spawn(async move {
            sets.ask(&url, &set, now).await;
            drop(asking);
        });
    }

    async fn ask(&self, url: &str, set: &KeySet, now: DateTime<Utc>) {
        let answer = self.fetcher.keys(url).await;
        let outcome = match answer.map(|shown| set.take(shown, now)) {
            Ok(true) => "ok",
            Ok(false) => {
                tracing::warn!(url, "an issuer shows no key that is taken; those that it showed before are kept");
                "empty"
            }
            Err(error) => {
                tracing::warn!(url, %error, "an issuer's keys cannot be had; those that it showed before are kept");
                "failed"
            }
        };
        self.fetches.add(1, &[KeyValue::new("outcome", outcome)]);
        set.held.write().unwrap_or_else(PoisonError::into_inner).tried_at = Some(now);
    }
}

impl KeySet {
    /// What is known without asking; none if it must be asked for.
    fn look(&self, id: Option<&str>, algorithm: Algorithm, now: DateTime<Utc>, keep: Duration) -> Option<Found> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let is_usable = held.fetched_at.is_some_and(|at| now < at + keep);
        if is_usable {
            let mut fitting = held.keys.iter().filter(|key| {
                key.algorithm == algorithm && id.is_none_or(|id| key.shown.common.key_id.as_deref() == Some(id))
            });
            let first = fitting.next();
            // Of two that fit, none is meant.
            if let (Some(key), None) = (first, fitting.next()) {
                return Some(Ok(Some(Arc::clone(key))));
            }
        }
        let was_tried = held.tried_at.is_some_and(|at| now < at + BETWEEN);
        was_tried.then(|| if is_usable { Ok(None) } else { Err(Unreachable) })
    }

    fn is_due(&self, now: DateTime<Utc>) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.fetched_at.is_none_or(|at| now >= at + FRESH) && held.tried_at.is_none_or(|at| now >= at + BETWEEN)
    }

    /// Takes in what is shown now; a key that is not among it is gone. False, and nothing changes, if no key is among it.
    fn take(&self, shown: Vec<Jwk>, now: DateTime<Utc>) -> bool {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        let keys: Vec<Arc<PublicKey>> = shown
            .into_iter()
            .filter_map(|shown| {
                let same = held.keys.iter().find(|key| key.shown == shown);
                same.map_or_else(|| PublicKey::of(shown).map(Arc::new), |same| Some(Arc::clone(same)))
            })
            .collect();
        if keys.is_empty() {
            return false;
        }
        for before in &held.keys {
            let is_gone = !keys.iter().any(|key| Arc::ptr_eq(key, before));
            before.is_gone.store(is_gone, Ordering::Relaxed);
        }
        held.keys = keys;
        held.fetched_at = Some(now);
        true
    }
}
