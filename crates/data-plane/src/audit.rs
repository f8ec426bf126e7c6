//! What this node notices for the audit trail: written to its disk before the request is answered, and brought to the control
//! plane once that is there.
//!
//! Nobody is looked up here: who was aimed at, the control plane finds out. A request that is admitted never comes here.

mod ship;
mod spool;
mod tally;
mod trail;

use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use chrono::{SubsecRound as _, Utc};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use service::telemetry::RequestContext;
use tenancy::TenantId;
use tenancy::audit::{MAX_NAMES, Notice, Noticed};
use tokio::sync::Notify;

use crate::session::Principal;
use spool::Spool;
use tally::Tally;

pub(crate) use ship::ship;
pub(crate) use trail::routes;

/// What this node notices; clones share it.
#[derive(Clone)]
pub(crate) struct Audit(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    news: Notify,
    dropped: Counter<u64>,
}

struct State {
    tally: Tally,
    spool: Spool,
    /// Events that could not be written, and were not told of yet.
    unwritten: u64,
}

impl Audit {
    /// Opens the spool in this folder, which may hold so many bytes.
    pub(crate) fn open(folder: &Path, most_bytes: u64, meter: &Meter) -> std::io::Result<Self> {
        let spool = Spool::open(folder, most_bytes)?;
        let dropped = meter
            .u64_counter("audit_events_dropped")
            .with_description("Events that no audit trail will show: the spool was full, or could not be written.")
            .build();
        let state = Mutex::new(State { tally: Tally::default(), spool, unwritten: 0 });
        let audit = Self(Arc::new(Inner { state, news: Notify::new(), dropped }));
        let gauge = audit.clone();
        meter
            .u64_observable_gauge("audit_spool_bytes")
            .with_description("Bytes of events that the control plane has not taken yet.")
            .with_callback(move |observer| observer.observe(gauge.state().spool.bytes(), &[]))
            .build();
        Ok(audit)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A principal named a tenant that it does not belong to, if there is one.
    pub(crate) fn cross_tenant<'a>(&self, principal: &Principal, names: impl Iterator<Item = &'a str>) {
        let mut noticed = by(principal, Notice::CrossTenantAttempt);
        noticed.named.extend(names.take(MAX_NAMES).map(|name| name.chars().take(256).collect::<String>()));
        self.note(principal.subject(), noticed);
    }

    /// A credential that is none. One alone is a typing error; many from one address are told.
    pub(crate) fn bad_credential(&self) {
        let from = RequestContext::current(RequestContext::client).flatten();
        let key = from.map_or_else(String::new, |address| network(address).to_string());
        self.note(&key, noticed(Notice::BadCredentials));
    }

    /// A principal of a tenant that is suspended or being deleted.
    pub(crate) fn suspended(&self, principal: &Principal, tenant: TenantId, status: &str) {
        let detail = Some(format!("the tenant is {status}"));
        let noticed = Noticed { tenant: Some(tenant), detail, ..by(principal, Notice::SuspendedRefused) };
        self.note(principal.subject(), noticed);
    }

    /// A database that is not proven to be its tenant's.
    pub(crate) fn database_refused(&self, tenant: TenantId, generation: u64, why: Option<String>) {
        let why = why.unwrap_or_default();
        let detail = Some(format!("generation {generation}: {why}"));
        let noticed = Noticed { tenant: Some(tenant), detail, ..noticed(Notice::DatabaseRefused) };
        self.note(&tenant.to_string(), noticed);
    }

    /// A tenant, or one client of it, came to a limit of its plan: told once in a while.
    pub(crate) fn limit_hit(&self, tenant: TenantId, principal: &Principal, limit: &str) {
        let detail = Some(limit.to_owned());
        let noticed = Noticed { tenant: Some(tenant), detail, ..by(principal, Notice::LimitHit) };
        self.note(&format!("{tenant} {limit}"), noticed);
    }

    /// Work that no request asked for took a session.
    pub(crate) fn background(&self, tenant: TenantId, principal: &Principal) {
        let noticed = Noticed { tenant: Some(tenant), ..by(principal, Notice::BackgroundSession) };
        self.note(&format!("{tenant} {}", principal.subject()), noticed);
    }

    fn note(&self, who: &str, noticed: Noticed) {
        let mut state = self.state();
        if let Some(noticed) = state.tally.note(who, noticed, Instant::now()) {
            self.write(&mut state, &noticed);
        }
    }

    /// Writes what is due of what was only counted so far.
    fn sum_up(&self, now: Option<Instant>) {
        let mut state = self.state();
        for noticed in state.tally.ended(now) {
            self.write(&mut state, &noticed);
        }
    }

    fn write(&self, state: &mut State, noticed: &Noticed) {
        if state.unwritten > 0 {
            let lost = dropped(state.unwritten, "they could not be written to the node's disk");
            if state.spool.append(&lost).is_ok() {
                state.unwritten = 0;
            }
        }
        match state.spool.append(noticed) {
            Ok(0) => {}
            Ok(count) => {
                self.0.dropped.add(count, &[KeyValue::new("reason", "full")]);
                tracing::error!(
                    count,
                    "the spool of audit events is full, and the oldest were dropped: the control plane was \
                    away for too long, or `audit.spool_mib` is too small"
                );
            }
            Err(error) => {
                if state.unwritten == 0 {
                    tracing::error!(%error, "an audit event could not be written: see to the disk of `node.state_dir`");
                }
                state.unwritten += 1;
                self.0.dropped.add(1, &[KeyValue::new("reason", "unwritten")]);
            }
        }
        self.0.news.notify_one();
    }
}

/// What is known of the request at hand.
fn noticed(notice: Notice) -> Noticed {
    let origin = RequestContext::current(|context| {
        (context.client().map(|address| address.to_string()), Some(context.id().as_str().to_owned()))
    });
    let (from, request_id) = origin.unwrap_or_default();
    let at = Utc::now().trunc_subsecs(6);
    Noticed { at, notice, actor: None, from, request_id, tenant: None, named: Vec::new(), count: None, detail: None }
}

fn by(principal: &Principal, notice: Notice) -> Noticed {
    let actor = Some(principal.subject().chars().take(512).collect());
    match principal.tenants() {
        [tenant] => Noticed { actor, tenant: Some(*tenant), ..noticed(notice) },
        [] => Noticed { actor, ..noticed(notice) },
        several => {
            let all: Vec<String> = several.iter().map(ToString::to_string).collect();
            Noticed { actor, detail: Some(format!("belongs to {}", all.join(", "))), ..noticed(notice) }
        }
    }
}

/// Events that nobody will see any more.
fn dropped(count: u64, why: &str) -> Noticed {
    let at = Utc::now().trunc_subsecs(6);
    let none = Noticed {
        at,
        notice: Notice::EventsDropped,
        actor: None,
        from: None,
        request_id: None,
        tenant: None,
        named: Vec::new(),
        count: None,
        detail: None,
    };
    Noticed { count: Some(count), detail: Some(why.to_owned()), ..none }
}

/// Who has one address of IPv6 has a network of them: they count as one.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
    }
}
