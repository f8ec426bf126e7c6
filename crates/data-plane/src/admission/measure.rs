//! Admission on a plane that knows so many tenants, without a network: for `cargo xtask bench` alone.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use axum::extract::Request;
use http::HeaderMap;
use opentelemetry::metrics::{MeterProvider as _, noop::NoopMeterProvider};
use sea_orm::ConnectionTrait as _;
use secrecy::ExposeSecret as _;
use service::problem::{BoxError, Problem};
use tenancy::route::{Revision, Route, RouteKey};
use tenancy::seal::{KeyRing, Sealed};
use tenancy::{ApiKey, Plan, Product, Status, TenantId};
use uuid::Uuid;

use super::authenticate::authenticate;
use super::identify::{Identified, Naming};
use crate::audit::Audit;
use crate::config::{ControlConfig, IssuerConfig, PoolsConfig, RedisConfig, StrangersConfig, TokensConfig};
use crate::key_uses::KeyUsesToTell;
use crate::limits::{Allowance, Limits, system_clock};
use crate::plane::{Parts, Plane};
use crate::pools::Pools;
use crate::routes::{Control, InUse, Lookup, Routes};
use crate::session::Principal;
use crate::strangers::Strangers;
use crate::tokens::Tokens;

/// Tenants that are asked for: spread over all that are known.
const ASKED_FOR: usize = 100;
/// Opens what is sealed here, and nothing else.
const KEY: &str = "dGVuYW50cy1rZXktb2YtdGhlLXRlc3RzLTMyLWJ5dGU=";

/// A plane to be measured.
pub struct Measured {
    plane: Plane,
    plan: Plan,
    /// Who calls with the keys, and its tenant.
    callers: Vec<(InUse, Principal)>,
    /// Keys of the tenants that are asked for.
    pub keys: Vec<String>,
    /// Their ids.
    pub tenants: Vec<TenantId>,
}

impl std::fmt::Debug for Measured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Measured").field("tenants", &self.tenants.len()).finish_non_exhaustive()
    }
}

impl Measured {
    /// A plane that knows so many tenants, each with a key, and trusts an issuer at that URL. Files are written into `folder`.
    pub async fn with_tenants(count: usize, issuer: &str, jwks_url: &str, folder: &Path) -> Result<Self, BoxError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let meter = NoopMeterProvider::new().meter("measure");
        let product = Product {
            name: "Measured",
            mount: "/api",
            schema_version: 1,
            scopes: &["pets:read"],
            config_keys: Vec::new(),
        };
        let strangers = Strangers::new(&StrangersConfig::default(), &meter);
        let control = ControlConfig { url: "http://127.0.0.1:9".into(), ..ControlConfig::default() };
        let routes = Routes::new(Control::new(&control)?, 1_000_000, strangers.clone(), &meter);
        let described = serde_json::json!({
            "issuer": issuer, "jwks_url": jwks_url, "audience": "pets", "scopes": product.scopes,
        });
        let issuers = vec![serde_json::from_value::<IssuerConfig>(described)?];
        let tokens = TokensConfig { issuers, allow_private_issuers: true, ..TokensConfig::default() };
        let ring = KeyRing::new(&serde_json::from_value(serde_json::json!({ "primary": "k", "keys": { "k": KEY } }))?)?;
        let mut measured = Self {
            plane: Plane::new(Parts {
                pools: Pools::new(ring.clone(), Uuid::nil(), &PoolsConfig::default(), &meter),
                tokens: Tokens::new(&tokens, product.scopes, &meter)?,
                audit: Audit::open(&folder.join("audit"), 1 << 20, &meter)?,
                limits: Limits::new(system_clock(), "measured".into(), &RedisConfig::default(), &meter)?,
                naming: Naming::new("pets.test", product.mount),
                key_uses: KeyUsesToTell::default(),
                product: Arc::new(product),
                routes,
                strangers,
            }),
            plan: plan(),
            callers: Vec::new(),
            keys: Vec::new(),
            tenants: Vec::new(),
        };
        let asked_for = count.div_ceil(ASKED_FOR);
        for number in 0..count {
            let is_asked_for = number % asked_for == 0;
            let (route, key) = measured.route(number, &ring, is_asked_for.then_some(folder)).await?;
            if is_asked_for {
                measured.keys.push(key.reveal().expose_secret().to_owned());
                measured.tenants.push(route.tenant);
            }
            let tenant = route.tenant;
            measured.plane.routes.know(route, key.id()).await;
            if is_asked_for && let Some(served) = measured.plane.routes.of_name(&Lookup::Tenant(tenant)).await? {
                let principal = served.principals[0].clone();
                measured.callers.push((served, principal));
            }
        }
        Ok(measured)
    }

    async fn route(&self, number: usize, ring: &KeyRing, folder: Option<&Path>) -> Result<(Route, ApiKey), BoxError> {
        let tenant = TenantId::from(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0000 + number as u128));
        let key = ApiKey::generate(&mut rand::rng());
        let scopes = vec!["pets:read".to_owned()];
        let mut route = Route {
            tenant,
            revision: Revision(1),
            slug: format!("tenant-{number}").parse()?,
            hosts: Vec::new(),
            status: Status::Active,
            plan: self.plan.clone(),
            config: std::collections::BTreeMap::new(),
            keys: vec![RouteKey { id: key.id().clone(), digest: key.digest(), scopes, expires_at: None }],
            issuers: Vec::new(),
            tokens_from: None,
            slug_since: None,
            schema_version: 1,
            server: "local".into(),
            generation: 1,
            reconnects: 0,
            sealed_url: Sealed::from_stored("none"),
        };
        if let Some(folder) = folder {
            let path = folder.join(format!("{tenant}.db"));
            let db = service::pool::open(format!("sqlite://{}?mode=rwc", path.display())).await?;
            db.execute_unprepared(tenancy::stamp::CREATE).await?;
            db.execute_unprepared(&format!("INSERT INTO freehold_stamp VALUES (1, '{tenant}')")).await?;
            db.close().await?;
            let url = format!("sqlite://{}", path.display()).into();
            route.sealed_url = ring.seal(route.url_subject(), &url, &mut rand::rng());
        }
        Ok((route, key))
    }

    /// The whole walk of a request, from its names to its session.
    pub async fn walk(&self, request: Request) -> Result<(), Problem> {
        let identified =
            self.plane.naming.identify(request).map_err(|_| Problem::internal("no path of the product"))?;
        super::admit(&self.plane, identified, &mut Allowance::default(), &mut None).await.map(drop)
    }

    /// Who calls, by the credential of these headers.
    pub async fn check_credential(&self, headers: &HeaderMap) -> Result<(), Problem> {
        authenticate(&self.plane, Identified::default(), headers).await.map(drop)
    }

    /// One request's permits of its plan, for the tenant and its client, as the walk takes them.
    pub async fn check_limit(&self, at: usize) -> bool {
        let (served, principal) = &self.callers[at % self.callers.len()];
        let kept = [&served.meter, principal.meter()];
        let taken = self.plane.limits.take_by(served.route.tenant, &self.plan, principal.subject(), Some(kept)).await;
        taken.is_ok()
    }
}

/// Limits both kinds, and holds nobody back.
fn plan() -> Plan {
    let many = NonZeroU32::new(100_000_000);
    let [one, enough] = [1, 64].map(|number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN));
    let mut plan = Plan::seeded().remove(0);
    (plan.requests, plan.window_seconds, plan.burst, plan.concurrency) = (many, one, None, enough);
    plan.client_requests = many;
    plan
}
