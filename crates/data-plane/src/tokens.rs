//! Signed tokens (JWT, RFC 7519) of issuers that are trusted: what they claim, and whether it is proven.
//!
//! Which algorithm is right, the issuer's key says and never the token. What was proven once is remembered until the token
//! expires, its issuer is trusted no longer, or its key is gone.

mod claims;
mod fetch;
mod key_set;
mod unproven;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, SubsecRound as _, Utc};
use foldhash::quality::RandomState;
use jsonwebtoken::{Validation, decode};
use moka::Expiry;
use moka::sync::Cache;
use opentelemetry::metrics::Meter;
use service::problem::BoxError;
use sha2::{Digest as _, Sha256};
use tenancy::{Issuer, Route, TenantId};

use crate::config::TokensConfig;
use crate::routes::Lookup;
use crate::session::Principal;
use claims::{Claims, InvalidClaim};
use key_set::{KeySets, PublicKey, Unreachable};
pub(crate) use unproven::Unproven;

/// Proven tokens that are remembered at most: some hundred bytes each.
const MOST_PROVEN: u64 = 100_000;

/// Proves tokens. Clones share what is remembered.
#[derive(Clone)]
pub(crate) struct Tokens {
    platform: Arc<[Trusted]>,
    proven: Cache<[u8; 32], Arc<Proven>, RandomState>,
    key_sets: KeySets,
    leeway: chrono::Duration,
}

/// An issuer, and whom its tokens speak for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trusted {
    pub(crate) issuer: Issuer,
    pub(crate) speaks_for: SpeaksFor,
}

/// Whom an issuer's tokens speak for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SpeaksFor {
    /// The tenant that trusts it, whatever they claim.
    Owner(TenantId),
    /// The tenants that they claim by this claim.
    Claimed(String),
}

/// A token whose issuer, signature and time are right.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) trusted: Trusted,
    /// By what the tenants that it speaks for are looked up.
    pub(crate) tenants: Box<[Lookup]>,
    pub(crate) subject: String,
    pub(crate) scopes: Vec<String>,
    pub(crate) issued_at: Option<DateTime<Utc>>,
    expires_at: DateTime<Utc>,
    key: Arc<PublicKey>,
    principal: std::sync::OnceLock<Principal>,
}

/// Why a token proves nothing. For the log: whoever sent it is told nothing of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotProven {
    #[error("its issuer shows no key of that id and algorithm")]
    NoSuchKey,
    #[error("its signature, issuer or audience is wrong: {0}")]
    Wrong(#[from] jsonwebtoken::errors::Error),
    #[error("{0}")]
    Claim(#[from] InvalidClaim),
    #[error("it has expired")]
    Expired,
    #[error("it is of the future")]
    Early,
    #[error("the issuer's keys cannot be had now")]
    KeysUnreachable,
}

impl From<Unreachable> for NotProven {
    fn from(_: Unreachable) -> Self {
        Self::KeysUnreachable
    }
}

impl Proven {
    /// Who calls, belonging to these tenants.
    pub(crate) fn principal(&self, tenants: &[TenantId]) -> Principal {
        let new = || Principal::new(self.subject.clone(), self.scopes.clone(), tenants);
        let first = self.principal.get_or_init(new);
        // The same tenants, but for one whose slug went to another.
        if first.tenants() == tenants { first.clone() } else { new() }
    }

    /// Whether it counts for the tenant that was found by this name.
    pub(crate) fn counts_for(&self, name: &Lookup, route: &Route, leeway: chrono::Duration) -> bool {
        let is_trusted = match self.trusted.speaks_for {
            SpeaksFor::Owner(tenant) => route.tenant == tenant && route.issuers.contains(&self.trusted.issuer),
            SpeaksFor::Claimed(_) => true,
        };
        // A token that does not say when it was issued may have been before.
        let is_of = |from: DateTime<Utc>| self.issued_at.is_some_and(|at| at >= from);
        // An issuer's clock may be ahead by the leeway: a token of less than that after the revocation may have been issued
        // before it.
        let revoked = route.tokens_from.map(|from| from + leeway);
        is_trusted && revoked.is_none_or(is_of) && slug_taken(name, route).is_none_or(is_of)
    }

    fn holds_at(&self, now: DateTime<Utc>, leeway: chrono::Duration) -> bool {
        now < self.expires_at + leeway && !self.key.is_gone()
    }
}

impl Tokens {
    /// Refuses issuers that the configuration describes wrongly, for a product of these scopes.
    pub(crate) fn new(config: &TokensConfig, scopes: &[&str], meter: &Meter) -> Result<Self, BoxError> {
        let mut platform = Vec::new();
        for (at, configured) in config.issuers.iter().enumerate() {
            let issuer = configured.issuer();
            let told = |error| format!("tokens.issuers[{at}]: {error}");
            issuer.check(config.allow_private_issuers, scopes).map_err(told)?;
            platform.push(Trusted { issuer, speaks_for: SpeaksFor::Claimed(configured.tenant_claim.clone()) });
        }
        Ok(Self {
            platform: platform.into(),
            proven: Cache::builder()
                .max_capacity(MOST_PROVEN)
                .expire_after(UntilExpired)
                .build_with_hasher(RandomState::default()),
            key_sets: KeySets::new(config, meter)?,
            leeway: chrono::Duration::seconds(config.leeway_seconds.into()),
        })
    }

    /// The platform's own issuer of this name.
    pub(crate) fn platform(&self, issuer: &str) -> Option<&Trusted> {
        self.platform.iter().find(|trusted| trusted.issuer.issuer == issuer)
    }

    /// How far the issuers' clocks may be ahead or behind.
    pub(crate) const fn leeway(&self) -> chrono::Duration {
        self.leeway
    }

    /// What was proven of this very token before, if it still holds.
    pub(crate) fn known(&self, token: &str, now: DateTime<Utc>) -> Option<Arc<Proven>> {
        self.proven.get(&digest(token)).filter(|proven| proven.holds_at(now, self.leeway))
    }

    /// Proves a token of an issuer that is trusted.
    pub(crate) async fn prove(
        &self,
        unproven: &Unproven<'_>,
        trusted: Trusted,
        now: DateTime<Utc>,
    ) -> Result<Arc<Proven>, NotProven> {
        let url = &trusted.issuer.jwks_url;
        let key = self.key_sets.find(url, unproven.key_id(), unproven.algorithm(), now).await?;
        let key = key.ok_or(NotProven::NoSuchKey)?;
        // The key's algorithm alone: a token cannot have its signature checked as something else.
        let mut validation = Validation::new(key.algorithm());
        validation.set_required_spec_claims(&["iss", "aud"]);
        validation.set_issuer(&[&trusted.issuer.issuer]);
        validation.set_audience(&[&trusted.issuer.audience]);
        // Times are compared below, by the clock that was handed in.
        validation.validate_exp = false;
        let claims: Claims = decode(unproven.text(), key.decoding(), &validation)?.claims;
        let times = claims.times()?;
        if now >= times.expires_at + self.leeway {
            return Err(NotProven::Expired);
        }
        let earliest = [times.not_before, times.issued_at].into_iter().flatten().max();
        if earliest.is_some_and(|earliest| earliest > now + self.leeway) {
            return Err(NotProven::Early);
        }
        let tenants = match &trusted.speaks_for {
            SpeaksFor::Owner(_) => Box::new([Lookup::Issuer(trusted.issuer.issuer.as_str().into())]),
            SpeaksFor::Claimed(claim) => claims.tenants(claim)?,
        };
        let proven = Arc::new(Proven {
            tenants,
            subject: claims.subject()?,
            scopes: claims.scopes(&trusted.issuer),
            issued_at: times.issued_at,
            expires_at: times.expires_at,
            trusted,
            key,
            principal: std::sync::OnceLock::new(),
        });
        self.proven.insert(digest(unproven.text()), Arc::clone(&proven));
        Ok(proven)
    }
}

/// Since when the name is the tenant's, if the name is a slug: one that was issued before meant the tenant that had the slug
/// then. Ids go to no other tenant.
///
/// `iat` is in whole seconds, and so is this: a token of the very second in which the tenant was created counts. The other
/// tenant's last token is no closer than that, as the slug was held back for long in between. For the same reason nothing is
/// added for issuers whose clocks are ahead: it would refuse a new tenant's first users.
fn slug_taken(name: &Lookup, route: &Route) -> Option<DateTime<Utc>> {
    matches!(name, Lookup::Slug(_)).then_some(route.slug_since?.trunc_subsecs(0))
}

/// What a token is remembered by: the token itself is kept nowhere.
fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// A proven token is remembered until it expires, an hour at most.
struct UntilExpired;

impl Expiry<[u8; 32], Arc<Proven>> for UntilExpired {
    fn expire_after_create(&self, _: &[u8; 32], proven: &Arc<Proven>, _: Instant) -> Option<Duration> {
        // Only what is kept is decided by this; whether it holds is seen at each use.
        let left = proven.expires_at.signed_duration_since(Utc::now()).to_std().unwrap_or_default();
        Some(left.clamp(Duration::from_mins(1), Duration::from_hours(1)))
    }
}

#[cfg(test)]
mod tests;
