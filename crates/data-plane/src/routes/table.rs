//! The table of routes: what it takes in, in whatever order and however often, it ends up at the registry's state.
//!
//! It does no I/O and asks no clock. Reading takes no lock; taking in does, so that an answer is judged against the very
//! position that it is taken in at.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use tenancy::feed::{FeedAnswer, FeedItem, RouteAnswer};
use tenancy::route::{Epoch, Revision, Route};
use tenancy::{Status, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::uses::{Use, Uses};

/// A tenant that this node serves, by one version of its route.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) route: Route,
    /// By requests at work with this version of the route.
    uses: Arc<Uses>,
    /// By pools that were dialled with this route's URL.
    pub(crate) dialled: Arc<Uses>,
    /// The requests that may be at work at once; goes from a route to its successor.
    concurrency: Arc<Semaphore>,
}

/// A tenant that a request is at work for. While it lives, nothing newer counts as applied.
#[derive(Debug)]
pub(crate) struct InUse {
    served: Arc<Served>,
    _use: Use,
}

impl Deref for InUse {
    type Target = Served;

    fn deref(&self) -> &Served {
        &self.served
    }
}

impl Served {
    fn new(route: Route, before: Option<&Self>) -> Self {
        let carried = before.filter(|before| before.route.plan.concurrency == route.plan.concurrency);
        let permits = usize::try_from(route.plan.concurrency.get()).unwrap_or(Semaphore::MAX_PERMITS);
        let concurrency = carried.map_or_else(|| Arc::new(Semaphore::new(permits)), |it| Arc::clone(&it.concurrency));
        let same_url = before.filter(|before| before.route.generation == route.generation && is_dialled(&route));
        let dialled = same_url.map_or_else(Arc::default, |before| Arc::clone(&before.dialled));
        Self { route, uses: Arc::default(), dialled, concurrency }
    }

    /// Leave for one more request, if the plan allows it now.
    pub(crate) fn permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.concurrency).try_acquire_owned().ok()
    }
}

fn is_dialled(route: &Route) -> bool {
    route.status == Status::Active
}

/// Whether an answer was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It was, or it said that there is nothing.
    Current,
    /// The feed is ahead of it, or it is of another history.
    Overtaken,
}

/// What is to be done after the feed was applied.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// Tenants whose pools of these generations are to be closed.
    pub(super) close: Vec<(TenantId, u64)>,
    /// Tenants that must be asked for again: the history is another.
    pub(super) reload: Vec<TenantId>,
}

/// The routes that a node keeps.
pub(crate) struct RouteTable {
    served: Cache<TenantId, Arc<Served>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    epoch: Option<Epoch>,
    position: Revision,
    /// The newest revision that any answer told of.
    heard: Revision,
    /// The newest revision at which any tenant had news.
    news: Revision,
    /// What was replaced at a revision and may still be in use.
    routes_left: Vec<(Revision, Arc<Uses>)>,
    urls_left: Vec<(Revision, Arc<Uses>)>,
    /// While what was held is asked for again, nothing counts as applied.
    is_reloading: bool,
    last_answer: Option<(Instant, Duration)>,
}

impl RouteTable {
    pub(crate) fn new(max_routes: u64) -> Self {
        Self { served: Cache::new(max_routes), state: Mutex::default() }
    }

    pub(crate) fn get(&self, tenant: TenantId) -> Option<InUse> {
        loop {
            let served = self.served.get(&tenant)?;
            let begun = served.uses.begin();
            // Replaced meanwhile, it may have been counted as unused already.
            if self.served.get(&tenant).is_some_and(|now| Arc::ptr_eq(&now, &served)) {
                return Some(InUse { served, _use: begun });
            }
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.served.entry_count()
    }

    /// The history that is followed, how far it was followed, and the newest revision that was heard of.
    pub(super) fn position(&self) -> (Option<Epoch>, Revision, Revision) {
        let state = self.state();
        (state.epoch, state.position, state.heard)
    }

    /// Whether the control plane was silent for longer than it allows.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.state().last_answer.is_some_and(|(at, allowed)| now.saturating_duration_since(at) > allowed)
    }

    pub(super) fn had_news_after(&self, revision: Revision) -> bool {
        self.state().news > revision
    }

    /// Takes in a single route that was asked for.
    pub(super) fn take(&self, answer: &RouteAnswer) -> Taken {
        let mut state = self.state();
        if state.epoch != Some(answer.epoch) || answer.as_of < state.position {
            return Taken::Overtaken;
        }
        state.heard = state.heard.max(answer.as_of);
        if let Some(route) = &answer.route {
            state.heard = state.heard.max(route.revision);
            self.replace(&mut state, route.revision, route.tenant, Some(route.clone()));
        }
        Taken::Current
    }

    /// The tenant is gone in the history that is followed now.
    pub(super) fn remove(&self, tenant: TenantId) {
        let mut state = self.state();
        let position = state.position;
        self.replace(&mut state, position, tenant, None);
    }

    /// Takes in what the feed answered to a request that asked for what came after `after`.
    pub(super) fn apply(&self, after: Revision, answer: FeedAnswer, now: Instant) -> Applied {
        let mut state = self.state();
        let mut applied = Applied::default();
        state.last_answer = Some((now, Duration::from_secs(answer.stale_after_seconds)));
        if answer.reset {
            if state.epoch == Some(answer.epoch) && answer.position <= state.position {
                // A repeated reset of the history that is followed already.
                return applied;
            }
            state.epoch = Some(answer.epoch);
            state.position = answer.position;
            state.news = answer.position;
            state.heard = answer.position;
            applied.reload = self.served.iter().map(|(tenant, _)| *tenant).collect();
            state.is_reloading = !applied.reload.is_empty();
            return applied;
        }
        // Of another history, or with a gap before it: the next request asks again.
        if state.epoch != Some(answer.epoch) || after > state.position {
            return applied;
        }
        for FeedItem { tenant, revision, route } in answer.items {
            state.news = state.news.max(revision);
            if let Some(before) = self.served.get(&tenant)
                && before.route.revision < revision
            {
                let stays = route.as_ref().is_some_and(|it| is_dialled(it) && it.generation == before.route.generation);
                if !stays {
                    applied.close.push((tenant, before.route.generation));
                }
                self.replace(&mut state, revision, tenant, route);
            }
        }
        state.position = state.position.max(answer.position);
        state.heard = state.heard.max(state.position);
        applied
    }

    /// What was held when the history changed has been asked for again.
    pub(super) fn reloaded(&self) {
        self.state().is_reloading = false;
    }

    /// The newest revision such that nothing older is served or dialled by this node.
    pub(super) fn applied(&self) -> Revision {
        let mut state = self.state();
        state.routes_left.retain(|(_, left)| left.is_in_use());
        state.urls_left.retain(|(_, left)| left.is_in_use());
        if state.is_reloading {
            return Revision(0);
        }
        let routes = state.routes_left.iter().map(|(revision, _)| *revision);
        let urls = state.urls_left.iter().map(|(revision, _)| *revision);
        let oldest = routes.chain(urls).min();
        oldest.map_or(state.position, |revision| Revision(revision.0.saturating_sub(1)))
    }

    fn replace(&self, state: &mut State, revision: Revision, tenant: TenantId, route: Option<Route>) {
        let before = self.served.get(&tenant);
        let served = route.map(|route| Arc::new(Served::new(route, before.as_deref())));
        if let Some(before) = before {
            state.routes_left.push((revision, Arc::clone(&before.uses)));
            if served.as_ref().is_none_or(|served| !Arc::ptr_eq(&served.dialled, &before.dialled)) {
                state.urls_left.push((revision, Arc::clone(&before.dialled)));
            }
        }
        match served {
            Some(served) => self.served.insert(tenant, served),
            None => self.served.invalidate(&tenant),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
