//! The table of routes: what it takes in, in whatever order and however often, it ends up at the registry's state.
//!
//! It does no I/O and asks no clock. Reading does not take the state's lock; taking in does, so that an answer is judged against the very
//! position that it is taken in at.

use std::collections::HashSet;
use std::hash::Hash;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tenancy::feed::{FeedAnswer, FeedItem, RouteAnswer};
use tenancy::route::{Epoch, Revision, Route};
use tenancy::{Status, TenantId};
use tokio::time::Instant;

use super::absence::{Absence, Heard};
use super::lookup::Lookup;
use super::url::{Dial, Url};
use crate::kept::Kept;
use crate::key_uses::NotedMinute;
use crate::limits::Limiter;
use crate::pools::TenantPool;
use crate::session::Principal;
use crate::uses::{Permit, Uses};

/// A tenant that this node serves, by one version of its route.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) route: Route,
    /// Who calls with each of the route's keys, in their order.
    pub(crate) principals: Box<[Principal]>,
    /// When each of them was last noted, in their order.
    pub(crate) noted: Box<[NotedMinute]>,
    /// The slug, for what is counted and logged.
    pub(crate) label: Arc<str>,
    /// The tenant's own meter.
    pub(crate) meter: Kept<Limiter>,
    /// Its pool.
    pub(crate) pool: Kept<TenantPool>,
    /// By requests at work with this version of the route.
    uses: Arc<Uses>,
    /// Another version has taken its place, or none. Set before it is looked whether anybody uses this one.
    is_left: AtomicBool,
    /// By pools that were dialled with this route's URL.
    pub(crate) dialled: Arc<Uses>,
    /// The requests that are at work; goes from a route to its successor.
    at_work: Arc<Uses>,
}

/// A tenant that a request is at work for. While it lives, nothing newer counts as applied.
#[derive(Debug)]
pub(crate) struct InUse(Arc<Served>);

impl Deref for InUse {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.0
    }
}

impl InUse {
    fn begin(served: Arc<Served>) -> Self {
        served.uses.enter();
        Self(served)
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.uses.leave();
    }
}

impl Served {
    fn new(route: Route, before: Option<&Self>) -> Self {
        let at_work = before.map_or_else(Arc::default, |before| Arc::clone(&before.at_work));
        let same_url = before.filter(|before| Dial::of(&before.route) == Dial::of(&route) && is_dialled(&route));
        let dialled = same_url.map_or_else(Arc::default, |before| Arc::clone(&before.dialled));
        let principals = route.keys.iter().map(|key| Principal::of_key(key, route.tenant)).collect();
        let noted = route.keys.iter().map(|_| NotedMinute::default()).collect();
        let label = route.slug.as_str().into();
        Self {
            route,
            principals,
            noted,
            label,
            meter: Kept::default(),
            pool: Kept::default(),
            uses: Arc::default(),
            is_left: AtomicBool::new(false),
            dialled,
            at_work,
        }
    }

    /// As `next` takes its place, or nothing.
    fn left_at(&self, revision: Revision, next: Option<&Self>) -> Left {
        self.is_left.store(true, Ordering::SeqCst);
        let dial = Dial::of(&self.route);
        let keeps_url = next.is_some_and(|next| Arc::ptr_eq(&next.dialled, &self.dialled));
        let is_dialled_again =
            next.is_some_and(|next| next.route.generation == dial.generation && is_dialled(&next.route));
        let url = (!keeps_url).then(|| Url { dial, dialled: Arc::clone(&self.dialled), is_dialled_again });
        Left { revision, tenant: dial.tenant, uses: Arc::clone(&self.uses), url }
    }

    /// Leave for one more request, if the plan allows it now.
    pub(crate) fn permit(&self) -> Option<Permit> {
        self.at_work.begin_below(usize::try_from(self.route.plan.concurrency.get()).unwrap_or(usize::MAX))
    }
}

impl Left {
    fn is_in_use(&self) -> bool {
        self.uses.is_in_use() || self.url.as_ref().is_some_and(|url| url.dialled.is_in_use())
    }
}

fn is_dialled(route: &Route) -> bool {
    route.status == Status::Active
}

/// A version of a route that was replaced, and may still be in use.
struct Left {
    /// The revision that replaced it: until nobody uses it, this node has not applied that.
    revision: Revision,
    tenant: TenantId,
    uses: Arc<Uses>,
    /// Its URL, if the successor has another or none.
    url: Option<Url>,
}

/// The routes that a node keeps.
pub(crate) struct RouteTable {
    served: Cache<TenantId, Arc<Served>, RandomState>,
    /// What the cache had no room for. It tells of it in the middle of a change, when the state is locked.
    evicted: Arc<Mutex<Vec<Arc<Served>>>>,
    names: Heard,
    made: Instant,
    /// Until when what is known may be served, in milliseconds after `made`. 0: nothing was heard yet.
    fresh_until: AtomicU64,
    state: Mutex<State>,
}

/// Where the table was when something was asked. What is answered is judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The history that is followed.
    pub(super) epoch: Option<Epoch>,
    /// How far it was followed.
    pub(super) after: Revision,
    /// The newest revision that was heard of.
    pub(super) heard: Revision,
    /// How many resets were followed before. A history that lost its newest part goes on under the same name and with the
    /// same numbers: this alone tells the two apart.
    resets: u64,
}

#[derive(Default)]
struct State {
    epoch: Option<Epoch>,
    position: Revision,
    /// Up to here the node holds nothing that is out of date. Behind the position while there are more pages of news: a tenant that
    /// changed twice is on the last of them alone.
    current: Revision,
    /// The newest revision that any answer told of.
    heard: Revision,
    /// Resets that were followed.
    resets: u64,
    left: Vec<Left>,
    /// Held from a history, or a part of one, that is followed no longer, and to be asked for again. Nothing counts as
    /// applied meanwhile.
    awaited: HashSet<TenantId>,
}

impl RouteTable {
    pub(crate) fn new(max_routes: u64) -> Self {
        let evicted: Arc<Mutex<Vec<Arc<Served>>>> = Arc::default();
        let told = Arc::clone(&evicted);
        let served = Cache::builder()
            .max_capacity(max_routes)
            // The default policy may refuse a cold tenant for the sake of warm ones.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, served: Arc<Served>, cause| {
                if cause == RemovalCause::Size {
                    // At once: news of it is not taken in any more.
                    served.is_left.store(true, Ordering::SeqCst);
                    told.lock().unwrap_or_else(PoisonError::into_inner).push(served);
                }
            })
            .build_with_hasher(RandomState::default());
        Self {
            served,
            evicted,
            names: Heard::new(),
            made: Instant::now(),
            fresh_until: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, tenant: TenantId) -> Option<InUse> {
        loop {
            let begun = InUse::begin(self.served.get(&tenant)?);
            // Replaced meanwhile, it may have been counted as unused already.
            if !begun.is_left.load(Ordering::SeqCst) {
                return Some(begun);
            }
        }
    }

    /// As [`RouteTable::get`], by who asks for the same tenant again and again and keeps what it found.
    pub(super) fn get_by(&self, tenant: TenantId, kept: &Kept<Served>, now: Instant) -> Option<InUse> {
        let now = now.saturating_duration_since(self.made);
        if let Some(served) = kept.get(now) {
            let begun = InUse::begin(served);
            if !begun.is_left.load(Ordering::SeqCst) {
                return Some(begun);
            }
        }
        let found = self.get(tenant)?;
        kept.keep(&found.0, now);
        Some(found)
    }

    pub(crate) fn len(&self) -> u64 {
        self.served.entry_count()
    }

    /// Where the table is: to be read before anything is asked.
    pub(crate) fn position(&self) -> Position {
        let state = self.state();
        Position { epoch: state.epoch, after: state.position, heard: state.heard, resets: state.resets }
    }

    /// Whether the control plane was silent for longer than it allows.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        let fresh_until = self.fresh_until.load(Ordering::Relaxed);
        fresh_until != 0 && now > self.made + Duration::from_millis(fresh_until)
    }

    /// Whether nobody has the key or name still.
    pub(super) fn is_absent(&self, key: &impl Hash, absence: Absence) -> bool {
        self.names.is_absent(key, absence)
    }

    /// Takes in a single route that was asked for at `asked`, and answers what it means if there is none. None: the feed is
    /// ahead of it, or it is of a history, or of a part of one, that is followed no longer.
    pub(crate) fn take(&self, asked: Position, answer: &RouteAnswer) -> Option<Absence> {
        let mut state = self.state();
        let is_current = asked.resets == state.resets && state.epoch == Some(answer.epoch);
        if !is_current || answer.as_of < state.position {
            return None;
        }
        state.heard = state.heard.max(answer.as_of);
        if let Some(route) = &answer.route {
            state.heard = state.heard.max(route.revision);
            if self.is_news(&state, route.tenant, route.revision) {
                self.replace(&mut state, route.revision, route.tenant, Some(route.clone()));
            }
        }
        Some(self.names.absent(answer.as_of))
    }

    /// The tenant is gone in the history that is followed now.
    pub(super) fn remove(&self, tenant: TenantId) {
        let mut state = self.state();
        let position = state.position;
        self.replace(&mut state, position, tenant, None);
    }

    /// Takes in what the feed answered to a request that was made at `asked` and sent at `sent`.
    pub(crate) fn apply(&self, asked: Position, answer: FeedAnswer, sent: Instant) {
        let mut state = self.state();
        let fresh = sent.saturating_duration_since(self.made) + Duration::from_secs(answer.stale_after_seconds);
        self.fresh_until.store(u64::try_from(fresh.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
        // Asked before the last reset: what it tells may be of what that reset left behind, and a reset is told again.
        if asked.resets != state.resets {
            return;
        }
        if answer.reset {
            self.forget_unused(&mut state);
            state.resets += 1;
            state.epoch = Some(answer.epoch);
            // It may go back: the registry lost what came after.
            state.position = answer.position;
            state.current = answer.position;
            state.heard = answer.position;
            self.names.begin_history();
            state.awaited = self.served.iter().map(|(tenant, _)| *tenant).collect();
            // Revisions of another history, or of a lost part of this one, cannot be compared with those that come.
            for left in &mut state.left {
                left.revision = Revision(0);
            }
            return;
        }
        // Of another history: the next request is answered with a reset.
        if state.epoch != Some(answer.epoch) {
            return;
        }
        for FeedItem { tenant, revision, route } in answer.items {
            if let Some(route) = &route {
                route.keys.iter().for_each(|key| self.names.hear(&key.id, revision));
                Lookup::all_of(route).for_each(|name| self.names.hear(&name, revision));
            }
            if self.served.contains_key(&tenant) && self.is_news(&state, tenant, revision) {
                self.replace(&mut state, revision, tenant, route);
            }
        }
        // Who lets a route give way tells so after it is gone: what was skipped above has been told of when this has ended.
        self.served.run_pending_tasks();
        // Before it: what gave way until now may have missed this news, which is not applied while that is in use.
        self.forget_unused(&mut state);
        state.position = state.position.max(answer.position);
        if answer.position >= answer.head {
            state.current = state.current.max(answer.position);
        }
        state.heard = state.heard.max(state.position).max(answer.head);
    }

    /// Tenants that must be asked for again.
    pub(super) fn awaited(&self) -> Vec<TenantId> {
        self.state().awaited.iter().copied().collect()
    }

    /// The newest revision such that nothing older is served or dialled by this node.
    pub(crate) fn applied(&self) -> Revision {
        let mut state = self.state();
        self.forget_unused(&mut state);
        if !state.awaited.is_empty() {
            return Revision(0);
        }
        let oldest = state.left.iter().map(|left| left.revision).min();
        let unused = oldest.map_or(state.current, |revision| Revision(revision.0.saturating_sub(1)));
        unused.min(state.current)
    }

    /// URLs that may still be dialled, and must not be.
    pub(crate) fn to_close(&self) -> Vec<Url> {
        let mut state = self.state();
        self.forget_unused(&mut state);
        state.left.iter().filter_map(|left| left.url.clone()).collect()
    }

    fn is_news(&self, state: &State, tenant: TenantId, revision: Revision) -> bool {
        let held = self.served.get(&tenant);
        held.is_none_or(|held| held.route.revision < revision) || state.awaited.contains(&tenant)
    }

    fn replace(&self, state: &mut State, revision: Revision, tenant: TenantId, route: Option<Route>) {
        let before = self.served.get(&tenant);
        let served = route.map(|route| Arc::new(Served::new(route, before.as_deref())));
        match served.clone() {
            Some(served) => self.served.insert(tenant, served),
            None => self.served.invalidate(&tenant),
        }
        // After the insert: a request that finds this version left looks for the next one, which must be there. The tenant may have
        // changed twice since the last news; this version was out of date from the first change on.
        if let Some(before) = before {
            let first = revision.min(Revision(state.current.0 + 1));
            state.left.push(before.left_at(first, served.as_deref()));
        }
        state.awaited.remove(&tenant);
    }

    /// A request that uses a version of a tenant's route may yet dial its URL, so that all versions wait for each other.
    fn forget_unused(&self, state: &mut State) {
        let next = Revision(state.current.0 + 1);
        for evicted in self.evicted.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            state.awaited.remove(&evicted.route.tenant);
            state.left.push(evicted.left_at(next, None));
        }
        let in_use: HashSet<TenantId> =
            state.left.iter().filter(|left| left.is_in_use()).map(|left| left.tenant).collect();
        state.left.retain(|left| in_use.contains(&left.tenant));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
