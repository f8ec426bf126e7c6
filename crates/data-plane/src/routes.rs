//! What this node knows of tenants: their routes, kept up to date by the feed, asked for when they are first needed.
//!
//! On the path of a request whose tenant is known nothing is asked: no HTTP call, and no lock but, for a
//! moment, that of what is kept (`kept.rs`).

mod absence;
mod control;
mod follow;
mod lookup;
mod table;
mod url;

use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::quality::RandomState;
use http::StatusCode;
use moka::Expiry;
use moka::future::Cache;
use opentelemetry::metrics::{Counter, Meter};
use service::Problem;
#[cfg(feature = "measure")]
use tenancy::feed::FeedAnswer;
use tenancy::feed::{RouteAnswer, RouteQuery};
use tenancy::route::Route;
use tenancy::{KeyId, TenantId};

pub(crate) use control::{Control, ControlError};
pub(crate) use follow::follow;
pub(crate) use lookup::Lookup;
pub(crate) use table::{InUse, RouteTable, Served};
pub(crate) use url::{Dial, Url};

use crate::canaries::Canaries;
use crate::kept::Kept;
use crate::strangers::Strangers;
use absence::Absence;

/// Key ids, and names, at most whose tenants, or that nobody has them, are remembered.
const MOST: u64 = 200_000;
/// How long it is believed that nobody has a key id or name. News of a tenant that has it ends it sooner.
const NOBODY_FOR: Duration = Duration::from_secs(30);
/// Answers that the feed overtook are asked for again, this often at most.
const ATTEMPTS: u32 = 10;

/// The routes of this node; clones share them.
#[derive(Clone)]
pub(crate) struct Routes {
    table: Arc<RouteTable>,
    keys: Found<KeyId>,
    names: Found<Lookup>,
    control: Control,
    strangers: Strangers,
    lookups: Counter<u64>,
    /// Tenants whose requests the control plane has counted.
    pub(crate) canaries: Canaries,
}

/// Whose key ids or names are.
type Found<K> = Cache<K, Holder, RandomState>;

fn found<K: Hash + Eq + Send + Sync + 'static>() -> Found<K> {
    Cache::builder().max_capacity(MOST).expire_after(Forget).build_with_hasher(RandomState::default())
}

/// Whose a key id or name is.
#[derive(Clone, Debug)]
enum Holder {
    Tenant(Arc<Whose>),
    Nobody(Absence),
}

/// A tenant, and the version of its route that was found last. One that gave way keeps its room, some 400 bytes, until it is
/// looked for again.
#[derive(Debug)]
struct Whose {
    tenant: TenantId,
    kept: Kept<Served>,
}

impl Holder {
    fn tenant(tenant: TenantId) -> Self {
        Self::Tenant(Arc::new(Whose { tenant, kept: Kept::default() }))
    }
}

/// Only that nobody has it is forgotten by time.
struct Forget;

impl<K> Expiry<K, Holder> for Forget {
    fn expire_after_create(&self, _: &K, holder: &Holder, _: Instant) -> Option<Duration> {
        matches!(holder, Holder::Nobody(_)).then_some(NOBODY_FOR)
    }
}

impl Routes {
    pub(crate) fn new(control: Control, max_routes: u64, strangers: Strangers, meter: &Meter) -> Self {
        let table = Arc::new(RouteTable::new(max_routes));
        let gauge = Arc::clone(&table);
        meter
            .u64_observable_gauge("data_plane_routes")
            .with_description("Tenants whose routes are kept.")
            .with_callback(move |observer| observer.observe(gauge.len(), &[]))
            .build();
        Self {
            table,
            keys: found(),
            names: found(),
            control,
            strangers,
            canaries: Canaries::default(),
            lookups: meter
                .u64_counter("data_plane_route_lookups")
                .with_description("Routes asked of the control plane.")
                .build(),
        }
    }

    /// Takes in a route and its key as if they had been asked for.
    #[cfg(feature = "measure")]
    pub(crate) async fn know(&self, route: Route, key: &KeyId) {
        use tenancy::route::{Epoch, Revision};
        let (epoch, position) = (Epoch(uuid::Uuid::nil()), Revision(1));
        let first = self.table.position();
        if first.epoch.is_none() {
            let reset = FeedAnswer { reset: true, ..FeedAnswer::without_news(epoch, position, 86_400) };
            self.table.apply(first, reset, tokio::time::Instant::now());
        }
        let tenant = route.tenant;
        let answer = RouteAnswer { epoch, as_of: position, route: Some(route) };
        self.table.take(self.table.position(), &answer);
        self.keys.insert(key.clone(), Holder::tenant(tenant)).await;
    }

    /// The tenant that has this key, if any has it.
    pub(crate) async fn of_key(&self, key: &KeyId) -> Result<Option<InUse>, Problem> {
        let query = || RouteQuery { key: Some(key.clone()), ..RouteQuery::default() };
        // Whether it still has the key is seen by whoever compares its secret.
        self.find(&self.keys, key, query, |_| true).await
    }

    /// The tenant that has this name, if any has it. Only for a caller who is known to belong there, or where everybody may
    /// know that it exists.
    pub(crate) async fn of_name(&self, name: &Lookup) -> Result<Option<InUse>, Problem> {
        // One that is known by whatever name is known by its id.
        if let Lookup::Tenant(tenant) = name
            && !self.is_stale()
            && let Some(served) = self.table.get(*tenant)
        {
            return Ok(Some(served));
        }
        self.find(&self.names, name, || name.query(), |route| name.is_of(route)).await
    }

    async fn find<K: Hash + Eq + Clone + Send + Sync + 'static>(
        &self,
        found: &Found<K>,
        key: &K,
        query: impl Fn() -> RouteQuery,
        is_its: impl Fn(&Route) -> bool,
    ) -> Result<Option<InUse>, Problem> {
        let now = tokio::time::Instant::now();
        if self.table.is_stale(now) {
            return Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "node-stale",
                "This node has not heard from the control plane for too long and serves no longer. Try another node.",
            )
            .with_retry_after(Duration::from_secs(5)));
        }
        // Twice: what is remembered may be overtaken, and is asked for anew then.
        for _ in 0..2 {
            let holder = if let Some(holder) = found.get(key).await {
                holder
            } else {
                let knock = self.strangers.knock()?;
                // In a box: the future of a question is large, and would be part of every request's.
                let asked = Box::pin(found.try_get_with_by_ref(key, self.ask(query()))).await;
                let is_nobodys = match &asked {
                    Ok(holder) => matches!(holder, Holder::Nobody(_)),
                    // A node that has only just started asks nobody yet.
                    Err(error) => !matches!(**error, ControlError::NotHeard),
                };
                if !is_nobodys {
                    knock.welcome();
                }
                asked.map_err(|error| unavailable(&error))?
            };
            match holder {
                Holder::Tenant(whose) => {
                    let served = self.table.get_by(whose.tenant, &whose.kept, now);
                    if let Some(served) = served.filter(|served| is_its(&served.route)) {
                        return Ok(Some(served));
                    }
                }
                Holder::Nobody(absence) if self.table.is_absent(key, absence) => return Ok(None),
                Holder::Nobody(_) => {}
            }
            found.invalidate(key).await;
        }
        Err(unavailable(&Arc::new(ControlError::Overtaken)))
    }

    /// Whether the control plane was silent for longer than it allows.
    pub(crate) fn is_stale(&self) -> bool {
        self.table.is_stale(tokio::time::Instant::now())
    }

    async fn ask(&self, query: RouteQuery) -> Result<Holder, ControlError> {
        let (answer, absence) = self.ask_until_current(&query).await?;
        Ok(answer.route.map_or(Holder::Nobody(absence), |route| Holder::tenant(route.tenant)))
    }

    /// Asks for one tenant's route and takes it in.
    pub(super) async fn reload(&self, tenant: TenantId) -> Result<(), ControlError> {
        let query = RouteQuery { tenant: Some(tenant), ..RouteQuery::default() };
        if self.ask_until_current(&query).await?.0.route.is_none() {
            self.table.remove(tenant);
        }
        Ok(())
    }

    /// An answer that was taken in, and what it means if it has no route.
    async fn ask_until_current(&self, query: &RouteQuery) -> Result<(RouteAnswer, Absence), ControlError> {
        if self.table.position().epoch.is_none() {
            return Err(ControlError::NotHeard);
        }
        for attempt in 0..ATTEMPTS {
            // The timer's shortest sleep is a millisecond, even of no time at all.
            if attempt > 0 {
                tokio::time::sleep(Duration::from_millis(5) * attempt).await;
            }
            self.lookups.add(1, &[]);
            let asked = self.table.position();
            let answer = self.control.route(query).await?;
            // If the feed is ahead of this answer, it may lack what the feed has told already.
            if let Some(absence) = self.table.take(asked, &answer) {
                return Ok((answer, absence));
            }
        }
        Err(ControlError::Overtaken)
    }
}

fn unavailable(error: &Arc<ControlError>) -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "credential-unknown-now",
        "This is not known here, and the control plane cannot be asked now. Send the request again later.",
    )
    .with_retry_after(Duration::from_secs(1))
    .with_source(Arc::clone(error))
}
