//! The control plane's configuration: the sections of any service, and its own.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use service::config::{Invalid, LifecycleConfig, ListenConfig, Sections, Switch, TelemetryConfig, Validate};
use tenancy::audit::SigningKeys;
use tenancy::seal::{KeyRing, KeyRingConfig};

use crate::mail::MailConfig;

/// All sections.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `[listen]`: 127.0.0.1:8700, and its ops listener on :8701.
    pub listen: ListenConfig,
    /// `[telemetry]`
    pub telemetry: TelemetryConfig,
    /// `[lifecycle]`
    pub lifecycle: LifecycleConfig,
    /// `[registry]`
    #[serde(skip_serializing, default)]
    pub registry: RegistryConfig,
    /// `[tokens]`
    #[serde(skip_serializing, default)]
    pub tokens: TokensConfig,
    /// `[seal]`
    #[serde(skip_serializing, default)]
    pub seal: SealConfig,
    /// `[audit]`
    #[serde(skip_serializing, default)]
    pub audit: AuditConfig,
    /// `[tenants]`
    pub tenants: TenantsConfig,
    /// `[domains]`
    pub domains: DomainsConfig,
    /// `[mail]`
    #[serde(skip_serializing, default)]
    pub mail: Option<MailConfig>,
    /// `[[servers]]`: registered at the start when no server has the name.
    #[serde(skip_serializing, default)]
    pub servers: Vec<ServerConfig>,
}

/// `[registry]`: where the control plane keeps what it knows.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// `postgres://user:password@host/database`, or `sqlite:///path/registry.db?mode=rwc`.
    #[serde(default)]
    pub url: SecretString,
    /// An admin's URL on the same Postgres server, by which the database is created when it is absent.
    #[serde(default)]
    pub create_from: Option<SecretString>,
}

/// `[tokens]`: those that are not made by a call, at least 16 characters each.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensConfig {
    /// Makes the first admin, and is good for nothing else: further tokens are made by `POST /v1/operators`.
    #[serde(default)]
    pub bootstrap: SecretString,
    /// Data planes show it.
    #[serde(default)]
    pub node: SecretString,
    /// Whether tenants' issuers may show their keys without TLS and in private networks. The data planes decide for
    /// themselves whether they ask there.
    #[serde(default)]
    pub allow_private_issuers: bool,
}

/// `[seal.tenants]` and `[seal.servers]`: two rings, since data planes hold the first alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealConfig {
    /// Seals tenants' database URLs.
    #[serde(default)]
    pub tenants: KeyRingConfig,
    /// Seals servers' admin URLs and recorded answers.
    #[serde(default)]
    pub servers: KeyRingConfig,
}

/// `[audit]`: how the audit trail is signed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// Ed25519 keys, each a seed of 32 bytes in base64. The primary signs; the others are told to whoever asks what
    /// signatures of before are checked with.
    pub signing: KeyRingConfig,
    /// Seconds between checkpoints of a chain that goes on; 1 to 86400.
    pub checkpoint_seconds: u64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self { signing: KeyRingConfig::default(), checkpoint_seconds: 60 }
    }
}

/// `[tenants]`: how long things are waited for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TenantsConfig {
    /// Seconds during which a deleted tenant can be restored; 0 to 31536000.
    pub grace_seconds: u64,
    /// Seconds without a word after which a data plane serves no longer; 60 to 31536000.
    pub stale_after_seconds: u64,
    /// Seconds without a word after which a data plane is not waited for: the sessions that it left on servers are ended where
    /// its anchor is gone; 30 to 86400.
    pub ack_seconds: u64,
    /// Seconds after which the work of a control plane that died is taken over, at the next look for work: within a second
    /// more; 1 to 60.
    pub lease_seconds: u64,
    /// Seconds during which no other tenant may take the slug of a renamed or deleted one; 0 to 315360000.
    pub hold_slug_seconds: u64,
    /// Days after which a tenant's database credentials are rotated by themselves; 0 for never, up to 3650.
    pub rotate_after_days: u64,
    /// Days that operations are kept after they ended, but for each tenant's newest, which stays; 0 for ever, up to 3650.
    pub keep_operations_days: u64,
    /// SCRAM iterations of tenants' passwords on Postgres, up to 100000. The passwords are 256 random bits: one is as sound
    /// as any number, and each login is cheaper by thousands of hashes. Raise it where a rule demands a number.
    pub scram_iterations: NonZeroU32,
}

impl TenantsConfig {
    pub(crate) fn rotate_after(&self) -> Option<Duration> {
        (self.rotate_after_days > 0).then(|| Duration::from_secs(self.rotate_after_days * 86_400))
    }

    pub(crate) fn keep_operations(&self) -> Option<Duration> {
        (self.keep_operations_days > 0).then(|| Duration::from_secs(self.keep_operations_days * 86_400))
    }
}

impl Default for TenantsConfig {
    /// A week to change one's mind; a day for a data plane to hear from us; a quarter for links of before to be forgotten.
    fn default() -> Self {
        Self {
            grace_seconds: 7 * 86_400,
            stale_after_seconds: 86_400,
            ack_seconds: 120,
            lease_seconds: 8,
            hold_slug_seconds: 90 * 86_400,
            rotate_after_days: 0,
            keep_operations_days: 90,
            scram_iterations: NonZeroU32::MIN,
        }
    }
}

/// `[domains]`: tenants' custom hosts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DomainsConfig {
    /// What proves that a custom host is a tenant's.
    pub proof: Proof,
    /// Name servers that are asked, `9.9.9.9:53`; the system's if there is none.
    pub name_servers: Vec<SocketAddr>,
    /// The data planes' `names.base_domain`: no custom host may lie under it.
    pub base_domain: Option<String>,
}

/// What proves that a custom host is a tenant's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// A TXT record under it.
    #[default]
    Dns,
    /// Nothing: operators see to it that hosts are their tenants'.
    None,
}

/// One of `[[servers]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Its name.
    pub name: String,
    /// `postgres` or `sqlite`.
    pub engine: String,
    /// Where it is; tenants may demand a region.
    pub region: String,
    /// `postgres://admin:password@host/postgres`, or `sqlite:///folder`.
    pub admin_url: SecretString,
    /// `host:port` by which data planes reach it, if not by that of the admin URL: a pooler's, which pools sessions.
    #[serde(default)]
    pub data_address: Option<String>,
    /// Databases that it takes.
    pub capacity: u32,
    /// Connections that all data planes together may have open there; by default what the server takes, less what control
    /// planes need. Files have no budget.
    #[serde(default)]
    pub connection_budget: Option<u32>,
    /// Connections that are left to control planes; by default what one of them needs, on a small server half of what it takes.
    #[serde(default)]
    pub reserve: Option<u32>,
    /// Connections that all data planes together open there in a second.
    #[serde(default = "ServerConfig::connect_rate")]
    pub connect_rate: u32,
    /// Databases that are kept ready for tenants to come.
    #[serde(default = "ServerConfig::warm")]
    pub warm: u32,
}

impl ServerConfig {
    /// What a server on two cores takes without being busy with logins alone.
    pub(crate) const fn connect_rate() -> u32 {
        200
    }

    /// Enough that a sign-up rarely waits.
    pub(crate) const fn warm() -> u32 {
        2
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: ListenConfig::local(8700, 8701),
            telemetry: TelemetryConfig::default(),
            lifecycle: LifecycleConfig::default(),
            registry: RegistryConfig::default(),
            tokens: TokensConfig::default(),
            seal: SealConfig::default(),
            audit: AuditConfig::default(),
            tenants: TenantsConfig::default(),
            domains: DomainsConfig::default(),
            mail: None,
            servers: Vec::new(),
        }
    }
}

/// The flag that says that the registry was restored from a backup.
pub(crate) const RESTORED: &str = "restored";

impl Sections for Config {
    const SWITCHES: &'static [Switch] = &[Switch {
        name: RESTORED,
        help: "The registry was restored from a backup: begins another history of it, so that nothing that was ordered before \
               goes on by itself. For one start, of the first control plane",
    }];

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
        if self.registry.url.expose_secret().is_empty() {
            return Err(Invalid::new("registry.url", "is missing: set it to a postgres:// or sqlite:// URL"));
        }
        let scheme = self.registry.url.expose_secret().split(':').next().unwrap_or_default();
        if !matches!(scheme, "postgres" | "postgresql" | "sqlite") {
            return Err(Invalid::new("registry.url", "must begin with postgres:// or sqlite://"));
        }
        for (field, token) in [("tokens.bootstrap", &self.tokens.bootstrap), ("tokens.node", &self.tokens.node)] {
            if !(16..=512).contains(&token.expose_secret().len()) {
                return Err(Invalid::new(field, "must be a secret of 16 to 512 characters"));
            }
        }
        if self.tokens.bootstrap.expose_secret() == self.tokens.node.expose_secret() {
            return Err(Invalid::new("tokens.node", "must differ from `tokens.bootstrap`"));
        }
        for (field, ring) in [("seal.tenants", &self.seal.tenants), ("seal.servers", &self.seal.servers)] {
            KeyRing::new(ring).map_err(|error| Invalid::new(field, format!("is no usable key ring: {error}")))?;
        }
        if self.audit.signing.keys.is_empty() {
            let detail = "is missing: set `primary` and `keys`, a key made with `head -c 32 /dev/urandom | base64`";
            return Err(Invalid::new("audit.signing", detail));
        }
        SigningKeys::new(&self.audit.signing)
            .map_err(|error| Invalid::new("audit.signing", format!("is no usable set of keys: {error}")))?;
        if !(1..=86_400).contains(&self.audit.checkpoint_seconds) {
            return Err(Invalid::new("audit.checkpoint_seconds", "must be from 1 to 86400"));
        }
        if self.tenants.grace_seconds > 31_536_000 {
            return Err(Invalid::new("tenants.grace_seconds", "must be at most 31536000"));
        }
        if !(60..=31_536_000).contains(&self.tenants.stale_after_seconds) {
            return Err(Invalid::new("tenants.stale_after_seconds", "must be from 60 to 31536000"));
        }
        // A data plane that waits for news is heard that often.
        if !(30..=86_400).contains(&self.tenants.ack_seconds) {
            return Err(Invalid::new("tenants.ack_seconds", "must be from 30 to 86400"));
        }
        if !(1..=60).contains(&self.tenants.lease_seconds) {
            return Err(Invalid::new("tenants.lease_seconds", "must be from 1 to 60"));
        }
        if self.tenants.hold_slug_seconds > 315_360_000 {
            return Err(Invalid::new("tenants.hold_slug_seconds", "must be at most 315360000"));
        }
        if self.tenants.scram_iterations.get() > 100_000 {
            return Err(Invalid::new("tenants.scram_iterations", "must be at most 100000"));
        }
        if self.tenants.rotate_after_days > 3_650 {
            return Err(Invalid::new("tenants.rotate_after_days", "must be at most 3650"));
        }
        if self.tenants.keep_operations_days > 3_650 {
            return Err(Invalid::new("tenants.keep_operations_days", "must be at most 3650"));
        }
        let base = self.domains.base_domain.as_deref().unwrap_or("localhost");
        if base.is_empty() || base.starts_with('.') || base.bytes().any(|b| b.is_ascii_uppercase() || b == b':') {
            return Err(Invalid::new("domains.base_domain", "must be a host name in lower case without a port"));
        }
        if let Some(mail) = &self.mail {
            mail.validate().map_err(|error| error.within("mail"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usable() -> Config {
        let ring = || KeyRingConfig {
            primary: "k".into(),
            keys: [("k".into(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=".into())].into(),
        };
        Config {
            registry: RegistryConfig { url: "sqlite:///r.db".into(), create_from: None },
            tokens: TokensConfig {
                bootstrap: "operator-operator".into(),
                node: "node-node-node-node".into(),
                ..TokensConfig::default()
            },
            seal: SealConfig { tenants: ring(), servers: ring() },
            audit: AuditConfig { signing: ring(), ..AuditConfig::default() },
            ..Config::default()
        }
    }

    #[test]
    fn each_bad_field_is_named_and_no_secret_is_printed() {
        assert!(usable().validate().is_ok());
        let bad = |change: fn(&mut Config)| {
            let mut config = usable();
            change(&mut config);
            config.validate().unwrap_err().field
        };
        assert_eq!(bad(|it| it.registry.url = "mysql://x".into()), "registry.url");
        assert_eq!(bad(|it| it.tokens.node = "short".into()), "tokens.node");
        assert_eq!(bad(|it| it.tokens.node = it.tokens.bootstrap.clone()), "tokens.node");
        assert_eq!(bad(|it| it.seal.servers.primary = "other".into()), "seal.servers");
        assert_eq!(bad(|it| it.audit.signing = KeyRingConfig::default()), "audit.signing");
        assert_eq!(bad(|it| it.audit.checkpoint_seconds = 0), "audit.checkpoint_seconds");
        assert_eq!(bad(|it| it.tenants.stale_after_seconds = 1), "tenants.stale_after_seconds");
        assert_eq!(bad(|it| it.tenants.ack_seconds = 29), "tenants.ack_seconds");
        assert_eq!(bad(|it| it.tenants.keep_operations_days = 9_999), "tenants.keep_operations_days");
        let print = format!("{:?}", usable());
        assert!(!print.contains("operator-operator") && !print.contains("AAAA"), "{print}");
    }
}
