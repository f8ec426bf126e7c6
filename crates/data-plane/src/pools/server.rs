//! All connections of this node to one database server: never more than its share, whichever tenants they are for.
//!
//! A connection exists only under a permit, and the permit comes back when the server's side is gone. A tenant that has none
//! and waits gets one in its turn: under a permit that is free, else in place of the idle connection that is worth least.
//! Connections are opened at a bounded rate, a few at once, by tasks that no request can cancel.

mod away;
mod close;
mod open;
mod queue;

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::metrics::{Closed, PoolMetrics};
use super::refusal::Refusal;
use super::settings::Settings;
use super::tenant::{Live, TenantPool};
use away::Aways;
pub(super) use queue::Place;
use queue::Queue;

use crate::uses::Use;

/// A connection that was used within this time is one that this node could use.
const LATELY: Duration = Duration::from_secs(10);
/// How often the control plane is told that this node needs more.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// What this node has open on one server.
pub(super) struct ServerPool {
    pub(super) name: Arc<str>,
    pub(super) settings: Settings,
    pub(super) metrics: PoolMetrics,
    pub(super) is_of_files: bool,
    /// Tells that the control plane should hear of the share.
    news: Arc<Notify>,
    made: Instant,
    /// Tenants in the queue.
    starving: AtomicU32,
    is_over_share: AtomicBool,
    /// Connections that were used last before this moment, in microseconds after `made`, may be dead.
    suspect_until: AtomicU64,
    /// Where connections are opened and closed, also when they are given back by a thread that knows no runtime.
    pub(super) runtime: Handle,
    state: Mutex<State>,
}

struct State {
    share: u32,
    /// Connections of all pools, those that are being opened included.
    held: u32,
    /// Connections that are closed on this side, and whose permits are not back yet.
    closing: u32,
    opening: u32,
    /// Pools that hold connections, by their addresses in memory.
    members: HashMap<usize, Arc<TenantPool>>,
    queue: Queue,
    away: Aways,
    squeezed_until: Option<Instant>,
    /// The control plane waits to hear that no more are open than it granted.
    owes_word: bool,
    /// When it was told last that this node needs more.
    asked_at: Option<Instant>,
    connect_rate: Option<NonZeroU32>,
    rate: Option<DefaultDirectRateLimiter>,
    is_timer_set: bool,
}

/// A connection that may be opened: in place of another, or under a permit that was free.
struct Grant {
    pool: Arc<TenantPool>,
    replaced: Option<Live>,
    dialled: Use,
}

/// What is open on a server now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) share: u32,
    pub(super) held: u32,
    pub(super) closing: u32,
    pub(super) idle: u32,
    pub(super) starving: u32,
}

/// An eighth of a second's worth may come at once.
fn limiter(rate: NonZeroU32) -> DefaultDirectRateLimiter {
    let burst = NonZeroU32::new(rate.get().div_ceil(8)).unwrap_or(NonZeroU32::MIN);
    RateLimiter::direct(Quota::per_second(rate).allow_burst(burst))
}

fn key(pool: &TenantPool) -> usize {
    std::ptr::from_ref(pool).addr()
}

impl ServerPool {
    pub(super) fn new(name: Arc<str>, share: u32, settings: Settings, metrics: PoolMetrics, news: Arc<Notify>) -> Self {
        let state = State {
            share,
            held: 0,
            closing: 0,
            opening: 0,
            members: HashMap::new(),
            queue: Queue::default(),
            away: Aways::default(),
            squeezed_until: None,
            owes_word: false,
            asked_at: None,
            connect_rate: settings.connect_rate,
            rate: settings.connect_rate.map(limiter),
            is_timer_set: false,
        };
        Self {
            is_of_files: settings.connect_rate.is_none(),
            name,
            settings,
            metrics,
            news,
            made: Instant::now(),
            starving: AtomicU32::new(0),
            is_over_share: AtomicBool::new(false),
            suspect_until: AtomicU64::new(0),
            runtime: Handle::current(),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a tenant waits for a connection to be opened.
    pub(super) fn is_starving(&self) -> bool {
        self.starving.load(Ordering::Relaxed) > 0
    }

    /// Whether there are more connections than this node may have.
    pub(super) fn is_over_share(&self) -> bool {
        self.is_over_share.load(Ordering::Relaxed)
    }

    /// A connection was found dead: all that were used before now are tested before their next use.
    pub(super) fn suspect(&self) {
        let now = u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.suspect_until.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn is_suspect(&self, used: Instant) -> bool {
        let used = u64::try_from(used.saturating_duration_since(self.made).as_micros()).unwrap_or(u64::MAX);
        used < self.suspect_until.load(Ordering::Relaxed)
    }

    /// How many connections this node may have there from now on, and may open in a second. What is idle gives way at once, what
    /// is in use when it comes back.
    pub(super) fn set_share(self: &Arc<Self>, share: u32, connect_rate: Option<NonZeroU32>, now: Instant) {
        let mut excess = Vec::new();
        {
            let mut state = self.state();
            state.share = share;
            if !self.is_of_files && connect_rate.is_some() && connect_rate != state.connect_rate {
                state.connect_rate = connect_rate;
                state.rate = connect_rate.map(limiter);
            }
            // Before anything is looked at that is idle: what comes back from now on sees it.
            self.settle(&mut state);
            while state.held > share
                && let Some((_, live)) = state.take_victim(now, Duration::ZERO, None)
            {
                state.closing += 1;
                excess.push(live);
            }
            state.owes_word = state.held + state.closing > share;
            self.settle(&mut state);
        }
        for live in excess {
            self.bury(live, Closed::Shrunk);
        }
        self.dispatch(now);
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.state();
        let idle = state.members.values().map(|pool| pool.count_idle()).sum();
        Counts { share: state.share, held: state.held, closing: state.closing, idle, starving: state.queue.len() }
    }

    /// Connections that exist or may still exist on the server, and how many this node could use.
    pub(super) fn demand(&self, now: Instant) -> (u32, u32) {
        let state = self.state();
        let since = now.checked_sub(LATELY).unwrap_or(self.made);
        let used: u32 = state.members.values().map(|pool| pool.count_used_since(since)).sum();
        (state.held + state.closing, used.saturating_add(state.queue.len()))
    }

    /// Sees to what follows from a change of the state.
    fn settle(&self, state: &mut State) {
        self.is_over_share.store(state.held > state.share, Ordering::Relaxed);
        self.starving.store(state.queue.len(), Ordering::Relaxed);
        if self.is_of_files {
            return;
        }
        let is_full = state.held + state.closing >= state.share;
        let is_given_up = state.owes_word && state.held + state.closing <= state.share;
        // Said from time to time: what is needed, and how far a share was given up.
        let is_due = state.asked_at.is_none_or(|at| at.elapsed() >= ASK_EVERY);
        let is_short = is_due && (state.owes_word || is_full && state.queue.len() > 0);
        if is_given_up {
            state.owes_word = false;
        }
        if is_short {
            state.asked_at = Some(Instant::now());
        }
        // Others wait for what was given up, or may have more than they need.
        if is_given_up || is_short {
            self.news.notify_one();
        }
    }

    /// Asks for one more connection for this pool. Refused at once while the server is away and the pool has none.
    pub(super) fn ask(self: &Arc<Self>, pool: &Arc<TenantPool>, now: Instant) -> Result<(), Refusal> {
        {
            let mut state = self.state();
            if let Some(error) = state.away.refuses(pool.target.address(), now) {
                if pool.open() > 0 {
                    return Ok(());
                }
                let refusal = Refusal::NotOpened(error);
                self.metrics.refused(&refusal);
                return Err(refusal);
            }
            let mut inner = pool.state();
            if inner.place.is_none() && pool.wants_more(&mut inner) {
                inner.place = Some(state.queue.join(pool));
            }
            drop(inner);
            self.settle(&mut state);
        }
        self.dispatch(now);
        Ok(())
    }

    /// Opens what may be opened now.
    pub(super) fn dispatch(self: &Arc<Self>, now: Instant) {
        let grants = {
            let mut state = self.state();
            let mut grants = Vec::new();
            while let Some(grant) = self.grant(&mut state, now) {
                grants.push(grant);
            }
            self.settle(&mut state);
            grants
        };
        self.open_all(grants);
    }

    fn open_all(self: &Arc<Self>, grants: Vec<Grant>) {
        for grant in grants {
            self.runtime.spawn(Arc::clone(self).open(grant));
        }
    }

    fn grant(self: &Arc<Self>, state: &mut State, now: Instant) -> Option<Grant> {
        while state.opening < self.settings.openings {
            let pool = state.queue.first()?;
            let (wants_more, worth) = {
                let mut inner = pool.state();
                (pool.wants_more(&mut inner), pool.value_of_another(&inner, now))
            };
            // Should anything still wait there, it asks again, and is told.
            if !wants_more || state.away.refuses(pool.target.address(), now).is_some() {
                state.queue.leave(&pool);
                continue;
            }
            let is_squeezed = state.squeezed_until.is_some_and(|until| now < until);
            let has_room = state.held + state.closing < state.share && !is_squeezed;
            // Another connection of a tenant that has some displaces only what is worth less.
            let bound = (pool.open() > 0).then_some(worth);
            if !has_room && state.victim(now, self.settings.youngest, bound).is_none() {
                bound?;
                // Those behind it go on. It asks again.
                state.queue.leave(&pool);
                continue;
            }
            if let Err(wait) = state.may_open() {
                self.dispatch_after(state, wait);
                return None;
            }
            let replaced = if has_room {
                None
            } else {
                // Its tenant may have taken it meanwhile.
                let (_, live) = state.take_victim(now, self.settings.youngest, bound)?;
                self.metrics.closed(Closed::Replaced);
                Some(live)
            };
            return Some(state.grant_to(pool, replaced));
        }
        None
    }

    fn dispatch_after(self: &Arc<Self>, state: &mut State, wait: Duration) {
        if std::mem::replace(&mut state.is_timer_set, true) {
            return;
        }
        let server = Arc::clone(self);
        self.runtime.spawn(async move {
            tokio::time::sleep(wait).await;
            server.state().is_timer_set = false;
            server.dispatch(Instant::now());
        });
    }

    /// A connection that served its tenant's queue for its time goes to a tenant that has none, if one waits and may be served now.
    pub(super) fn pass_on(self: &Arc<Self>, from: &Arc<TenantPool>, live: Live, now: Instant) {
        let mut live = Some(live);
        let grant = {
            let mut state = self.state();
            let next = state.queue.first().filter(|next| {
                next.open() == 0
                    && !Arc::ptr_eq(next, from)
                    && next.wants_more(&mut next.state())
                    && state.away.refuses(next.target.address(), now).is_none()
            });
            let may_open = state.opening < self.settings.openings && next.is_some() && state.may_open().is_ok();
            let grant = next.filter(|_| may_open).map(|next| {
                state.release(from);
                state.grant_to(next, live.take())
            });
            self.settle(&mut state);
            grant
        };
        if let Some(live) = live {
            from.keep(live, now);
        }
        if let Some(grant) = grant {
            self.metrics.closed(Closed::Replaced);
            self.open_all(vec![grant]);
            // Its own statements that wait get their turn again, if that was its last.
            let _ = self.ask(from, now);
        }
    }
}

impl State {
    /// One connection less of this pool.
    fn release(&mut self, pool: &TenantPool) {
        self.held -= 1;
        pool.count_open(-1);
        if pool.open() == 0
            && let Some(pool) = self.members.remove(&key(pool))
        {
            // With none it stands before those that have some.
            self.queue.stand_again(&pool);
        }
    }

    /// Takes the pool out of the queue, and counts a connection for it, which exists from now on as far as its URL is concerned.
    fn grant_to(&mut self, pool: Arc<TenantPool>, replaced: Option<Live>) -> Grant {
        self.queue.leave(&pool);
        self.away.probe(pool.target.address());
        self.held += 1;
        self.opening += 1;
        pool.count_open(1);
        TenantPool::begin_opening(&mut pool.state());
        self.members.insert(key(&pool), Arc::clone(&pool));
        let dialled = pool.begin_dialling();
        Grant { pool, replaced, dialled }
    }

    /// Whether the rate allows another connection now, or when it will.
    fn may_open(&self) -> Result<(), Duration> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.check().map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }

    /// The pool whose idle connection is worth least, and less than this.
    fn victim(&self, now: Instant, youngest: Duration, bound: Option<f32>) -> Option<Arc<TenantPool>> {
        let valued = self.members.values().filter_map(|pool| Some((pool.idle_value(now, youngest)?, pool)));
        let (value, pool) = valued.min_by(|(one, _), (other, _)| one.total_cmp(other))?;
        bound.is_none_or(|bound| value < bound).then(|| Arc::clone(pool))
    }

    /// Takes away the idle connection that is worth least.
    fn take_victim(&mut self, now: Instant, youngest: Duration, bound: Option<f32>) -> Option<(Arc<TenantPool>, Live)> {
        let pool = self.victim(now, youngest, bound)?;
        let live = pool.take_idle()?;
        self.release(&pool);
        Some((pool, live))
    }
}
