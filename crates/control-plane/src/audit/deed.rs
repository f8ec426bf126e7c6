//! A deed: what a change does, for the trail. Who does it, whence and by which request is added when it is written.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use service::telemetry::RequestContext;
use tenancy::audit::{Chain, Event};
use uuid::Uuid;

use super::Account;
use crate::provision::On;

/// Who does what no operator ordered.
const CONTROL_PLANE: &str = "control-plane";

/// What a change does. It holds no secret: what is shown of a thing in the API is what is shown here.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    chain: Chain,
    event: Event,
}

impl Deed {
    fn new(chain: Chain, action: &str) -> Self {
        let event = Event {
            id: Uuid::nil(),
            at: DateTime::UNIX_EPOCH,
            action: action.to_owned(),
            actor: String::new(),
            from: None,
            request_id: None,
            tenant: None,
            target: None,
            subject: None,
            named: Vec::new(),
            before: None,
            after: None,
            node: None,
            count: None,
            detail: None,
        };
        Self { chain, event }
    }

    /// Done to a tenant: it is written in the tenant's own chain.
    pub(crate) fn on_tenant(action: &'static str, tenant: Uuid) -> Self {
        let mut deed = Self::new(Chain::Tenant(tenant.into()), action);
        deed.event.tenant = Some(tenant.into());
        deed
    }

    /// Done to what is of no tenant, such as a server, by its name.
    pub(crate) fn on_platform(action: &'static str, subject: impl Into<String>) -> Self {
        let mut deed = Self::new(Chain::Platform, action);
        deed.event.subject = Some(subject.into());
        deed
    }

    /// Done to what an operation is on.
    pub(crate) fn on(action: &'static str, on: On) -> Self {
        match on {
            On::Tenant(tenant) => Self::on_tenant(action, tenant),
            On::Server(server) => Self::on_platform(action, server.to_string()),
        }
    }

    /// A thing that belongs to the tenant: a key's id, a host.
    pub(crate) fn of(mut self, subject: impl Into<String>) -> Self {
        self.event.subject = Some(subject.into());
        self
    }

    /// As it was.
    pub(crate) fn before(mut self, before: &impl Serialize) -> Self {
        self.event.before = Some(told(before));
        self
    }

    /// As it is.
    pub(crate) fn after(mut self, after: &impl Serialize) -> Self {
        self.event.after = Some(told(after));
        self
    }

    /// As it was and as it is, but only the fields that differ.
    pub(crate) fn changed(mut self, before: &impl Serialize, after: &impl Serialize) -> Self {
        let (mut before, mut after) = (told(before), told(after));
        if let (Value::Object(was), Value::Object(is)) = (&mut before, &mut after) {
            let same: Vec<String> =
                was.iter().filter(|(key, value)| is.get(*key) == Some(value)).map(|(key, _)| key.clone()).collect();
            for key in same {
                was.shift_remove(&key);
                is.shift_remove(&key);
            }
        }
        (self.event.before, self.event.after) = (Some(before), Some(after));
        self
    }

    /// More, for people.
    pub(crate) fn detail(mut self, detail: impl Into<String>) -> Self {
        self.event.detail = Some(detail.into());
        self
    }

    /// As an event of this moment, by whoever is at work.
    pub(crate) fn event(self, account: Option<&Account>, now: DateTime<Utc>) -> (Chain, Event) {
        let actor = account.map_or(CONTROL_PLANE, Account::subject).to_owned();
        let origin = RequestContext::current(|context| {
            (context.client().map(|address| address.to_string()), Some(context.id().as_str().to_owned()))
        });
        let (from, request_id) = origin.unwrap_or_default();
        (self.chain, Event { id: Uuid::now_v7(), at: now, actor, from, request_id, ..self.event })
    }
}

fn told(value: &impl Serialize) -> Value {
    serde_json::to_value(value).unwrap_or_else(|error| Value::String(format!("could not be told: {error}")))
}
