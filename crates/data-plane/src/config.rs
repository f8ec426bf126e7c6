//! The data plane's configuration: the sections of any service, and its own.

mod pools;
mod redis;

use std::num::NonZeroU32;
use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use service::config::{Invalid, LifecycleConfig, ListenConfig, Sections, TelemetryConfig, Validate};
use tenancy::Issuer;
use tenancy::seal::{KeyRing, KeyRingConfig};

pub(crate) use pools::PoolsConfig;
pub(crate) use redis::{LimitsMode, RedisConfig};

/// All sections.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[listen]`: 127.0.0.1:8800, and its ops listener on :8801.
    pub listen: ListenConfig,
    /// `[telemetry]`
    pub telemetry: TelemetryConfig,
    /// `[lifecycle]`
    pub lifecycle: LifecycleConfig,
    /// `[control]`
    #[serde(skip_serializing, default)]
    pub control: ControlConfig,
    /// `[seal]`
    #[serde(skip_serializing, default)]
    pub seal: SealConfig,
    /// `[node]`
    pub node: NodeConfig,
    /// `[names]`
    pub names: NamesConfig,
    /// `[pools]`
    pub pools: PoolsConfig,
    /// `[tokens]`
    pub tokens: TokensConfig,
    /// `[strangers]`
    pub strangers: StrangersConfig,
    /// `[audit]`
    pub audit: AuditConfig,
    /// `[redis]`
    #[serde(skip_serializing, default)]
    pub redis: RedisConfig,
}

/// `[control]`: the control plane that this node follows.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlConfig {
    /// Its URL, `http://127.0.0.1:8700`.
    #[serde(default)]
    pub url: String,
    /// The token that nodes show it.
    #[serde(default)]
    pub node_token: SecretString,
}

/// `[seal.tenants]`: the ring that tenants' database URLs are sealed with. The servers' ring never comes here.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealConfig {
    /// Opens tenants' database URLs.
    #[serde(default)]
    pub tenants: KeyRingConfig,
}

/// `[node]`: what makes this node itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// A folder of this node's own, in which it keeps its id.
    pub state_dir: PathBuf,
    /// Seconds between two batches that tell which keys were used.
    pub tell_uses_seconds: NonZeroU32,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self { state_dir: PathBuf::new(), tell_uses_seconds: NonZeroU32::new(30).unwrap_or(NonZeroU32::MIN) }
    }
}

/// `[names]`: how requests name tenants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamesConfig {
    /// `acme.<base domain>` names the tenant `acme`.
    pub base_domain: String,
}

/// `[tokens]`: whose signed tokens are taken, beside those of the tenants' own issuers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokensConfig {
    /// The platform's own issuers, whose tokens say which tenants they speak for.
    pub issuers: Vec<IssuerConfig>,
    /// Whether keys may be asked for without TLS and in private networks: for development, and for issuers of one's own.
    pub allow_private_issuers: bool,
    /// Seconds that the issuers' clocks may be ahead or behind; 0 to 300. For as long after a tenant's tokens were revoked, new
    /// tokens are refused too.
    pub leeway_seconds: u32,
    /// Seconds for which an issuer's keys are used while it cannot be reached; 300 to 2592000.
    pub keep_keys_seconds: u32,
}

/// One of `[[tokens.issuers]]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// What its tokens say in `iss`, letter by letter.
    pub issuer: String,
    /// Where it shows its public keys.
    pub jwks_url: String,
    /// What its tokens must say in `aud`.
    pub audience: String,
    /// The most that its tokens may do.
    pub scopes: Vec<String>,
    /// The claim that says what a token may do.
    #[serde(default = "Issuer::scope_claim")]
    pub scope_claim: String,
    /// What a token may do that has no such claim.
    #[serde(default)]
    pub default_scopes: Vec<String>,
    /// The claim that says which tenants a token speaks for: an id or a slug, or a list of at most 64. A slug counts only in a
    /// token that was issued after the tenant took it.
    #[serde(default = "IssuerConfig::tenant_claim")]
    pub tenant_claim: String,
}

impl IssuerConfig {
    fn tenant_claim() -> String {
        "tenant".to_owned()
    }

    pub(crate) fn issuer(&self) -> Issuer {
        let Self { issuer, jwks_url, audience, scopes, scope_claim, default_scopes, tenant_claim: _ } = self.clone();
        Issuer { issuer, jwks_url, audience, scopes, scope_claim, default_scopes }
    }
}

impl Default for TokensConfig {
    fn default() -> Self {
        Self { issuers: Vec::new(), allow_private_issuers: false, leeway_seconds: 30, keep_keys_seconds: 86_400 }
    }
}

impl TokensConfig {
    fn validate(&self) -> Result<(), Invalid> {
        if self.leeway_seconds > 300 {
            return Err(Invalid::new("leeway_seconds", "must be at most 300"));
        }
        if !(300..=2_592_000).contains(&self.keep_keys_seconds) {
            return Err(Invalid::new("keep_keys_seconds", "must be from 300 to 2592000"));
        }
        for (at, issuer) in self.issuers.iter().enumerate() {
            if issuer.tenant_claim.is_empty() {
                return Err(Invalid::new(format!("issuers[{at}].tenant_claim"), "must name a claim"));
            }
            if self.issuers[..at].iter().any(|other| other.issuer == issuer.issuer) {
                return Err(Invalid::new(format!("issuers[{at}].issuer"), "is there twice"));
            }
        }
        Ok(())
    }
}

/// `[strangers]`: how many credentials and names that are nobody's are looked for, for each client address. Behind proxies,
/// `listen.proxies` says whose address that is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StrangersConfig {
    /// So many a second, over time.
    pub per_second: NonZeroU32,
    /// So many at once.
    pub burst: NonZeroU32,
}

impl Default for StrangersConfig {
    fn default() -> Self {
        let number = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        Self { per_second: number(10), burst: number(200) }
    }
}

/// `[audit]`: what is noticed and waits to be brought to the control plane.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// MiB of events on this node's disk at most; 1 to 10240. When it is full the oldest are dropped, counted and told.
    pub spool_mib: u64,
}

impl Default for AuditConfig {
    /// Some 200,000 events.
    fn default() -> Self {
        Self { spool_mib: 64 }
    }
}

impl Default for NamesConfig {
    fn default() -> Self {
        Self { base_domain: "localhost".to_owned() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ListenConfig::local(8800, 8801),
            telemetry: TelemetryConfig::default(),
            lifecycle: LifecycleConfig::default(),
            control: ControlConfig::default(),
            seal: SealConfig::default(),
            node: NodeConfig::default(),
            names: NamesConfig::default(),
            pools: PoolsConfig::default(),
            tokens: TokensConfig::default(),
            strangers: StrangersConfig::default(),
            audit: AuditConfig::default(),
            redis: RedisConfig::default(),
        }
    }
}

impl Sections for Config {
    fn listen(&self) -> &ListenConfig {
        &self.listen
    }

    fn telemetry(&self) -> &TelemetryConfig {
        &self.telemetry
    }

    fn lifecycle(&self) -> &LifecycleConfig {
        &self.lifecycle
    }
}

impl Validate for Config {
    fn validate(&self) -> Result<(), Invalid> {
        self.listen.validate().map_err(|error| error.within("listen"))?;
        self.telemetry.validate().map_err(|error| error.within("telemetry"))?;
        self.lifecycle.validate().map_err(|error| error.within("lifecycle"))?;
        let url = url::Url::parse(&self.control.url).ok();
        if !url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some()) {
            return Err(Invalid::new("control.url", "must be the control plane's URL, http://127.0.0.1:8700"));
        }
        if self.control.node_token.expose_secret().is_empty() {
            return Err(Invalid::new("control.node_token", "is missing: it is `tokens.node` of the control plane"));
        }
        KeyRing::new(&self.seal.tenants)
            .map_err(|error| Invalid::new("seal.tenants", format!("is no usable key ring: {error}")))?;
        if self.node.state_dir.as_os_str().is_empty() {
            return Err(Invalid::new("node.state_dir", "is missing: name a folder of this node's own"));
        }
        let domain = &self.names.base_domain;
        if domain.is_empty() || domain.starts_with('.') || domain.bytes().any(|b| b.is_ascii_uppercase() || b == b':') {
            return Err(Invalid::new("names.base_domain", "must be a host name in lower case without a port"));
        }
        self.pools.validate().map_err(|error| error.within("pools"))?;
        if !(1..=10_240).contains(&self.audit.spool_mib) {
            return Err(Invalid::new("audit.spool_mib", "must be from 1 to 10240"));
        }
        self.tokens.validate().map_err(|error| error.within("tokens"))?;
        self.redis.validate().map_err(|error| error.within("redis"))?;
        Ok(())
    }
}
