//! All connections of this node to one database server: never more than its share, whichever tenants they are for.
//!
//! A connection exists only under a permit, and the permit comes back when the server's side is gone. A tenant that has none
//! and waits gets one in its turn: under a permit that is free, else in place of the idle connection that is worth least.
//! Connections are opened at a bounded rate, a few at once, by tasks that no request can cancel, and only while the anchor lives.

mod away;
mod close;
mod moor;
mod open;
mod queue;
mod share;
mod turn;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use indexmap::IndexMap;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::anchor::Lifeline;
use super::metrics::{Closed, PoolMetrics};
use super::refusal::Refusal;
use super::settings::Settings;
use super::tenant::{Live, TenantPool};
use away::Aways;
use moor::{Calls, Mooring};
pub(super) use queue::Place;
use queue::Queue;
pub(super) use share::Granted;

use crate::uses::{Use, Uses};

/// Pools that are looked at for one whose idle connection may go: all that a server's share comes to, and some of many thousand files.
const LOOKED_AT: usize = 1_024;
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
    /// Until when connections may be opened.
    pub(super) lifeline: Arc<Lifeline>,
    calls: Arc<Calls>,
    /// Tells that the control plane should hear of the share.
    news: Arc<Notify>,
    made: Instant,
    /// Statements that wait for a connection.
    pub(super) waiting: Arc<Uses>,
    /// Tenants in the queue.
    starving: AtomicU32,
    /// Tenants that stand aside of it.
    aside: AtomicU32,
    is_over_share: AtomicBool,
    /// Connections that were used last before this moment, in microseconds after `made`, may be dead.
    suspect_until: AtomicU64,
    /// Where connections are opened and closed, also when they are given back by a thread that knows no runtime.
    pub(super) runtime: Handle,
    state: Mutex<State>,
}

struct State {
    /// Connections that the control plane granted, and what of them is for tenants.
    granted: u32,
    share: u32,
    mooring: Mooring,
    /// Connections of all pools, those that are being opened included.
    held: u32,
    /// Connections that are closed on this side, and whose permits are not back yet.
    closing: u32,
    /// The part of `closing` that the server may not have heard of: no anchor has answered since.
    left: u32,
    opening: u32,
    /// Pools that hold connections, by their addresses in memory.
    members: IndexMap<usize, Arc<TenantPool>>,
    /// Where it is looked next for one that gives way.
    next_looked_at: usize,
    queue: Queue,
    away: Aways,
    /// Addresses of a server that was full when one more connection was dialled.
    full: Aways,
    /// Addresses of a server that was full when a connection was dialled in the place of another: others took the place.
    contended: Aways,
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
    /// Connections that may be opened in a second; 0 where that is not bounded.
    pub(super) connect_rate: u32,
    pub(super) held: u32,
    pub(super) closing: u32,
    pub(super) anchors: u32,
    pub(super) idle: u32,
    pub(super) waiting: u32,
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
            granted: share,
            share,
            mooring: Mooring::default(),
            held: 0,
            closing: 0,
            left: 0,
            opening: 0,
            members: IndexMap::new(),
            next_looked_at: 0,
            queue: Queue::default(),
            away: Aways::default(),
            full: Aways::default(),
            contended: Aways::default(),
            owes_word: false,
            asked_at: None,
            connect_rate: settings.connect_rate,
            rate: settings.connect_rate.map(limiter),
            is_timer_set: false,
        };
        let is_of_files = settings.connect_rate.is_none();
        Self {
            is_of_files,
            lifeline: Arc::new(if is_of_files { Lifeline::of_files() } else { Lifeline::of_server() }),
            calls: Arc::default(),
            name,
            settings,
            metrics,
            news,
            made: Instant::now(),
            waiting: Arc::default(),
            starving: AtomicU32::new(0),
            aside: AtomicU32::new(0),
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

    /// Whether a tenant wants another connection, even if another tenant must give one up for it.
    pub(super) fn is_wanted_elsewhere(&self) -> bool {
        self.is_starving() || self.aside.load(Ordering::Relaxed) > 0
    }

    /// Whether there are more connections than this node may have.
    pub(super) fn is_over_share(&self) -> bool {
        self.is_over_share.load(Ordering::Relaxed)
    }

    /// A connection was found dead: all that were used before now are tested before their next use. A file that is lost says nothing
    /// of others.
    pub(super) fn suspect(&self) {
        if self.is_of_files {
            return;
        }
        let now = u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.suspect_until.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn is_suspect(&self, used: Instant) -> bool {
        let used = u64::try_from(used.saturating_duration_since(self.made).as_micros()).unwrap_or(u64::MAX);
        used < self.suspect_until.load(Ordering::Relaxed)
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
            if pool.wants_more(&mut inner) {
                state.queue.take_in(pool, &mut inner.place);
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
        while state.opening < self.settings.openings && self.lifeline.is_alive() {
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
            // A node without connections here has none that could give way. One dial at a time finds out whether there is room.
            let is_full = state.held > 0 && state.full.refuses(pool.target.address(), now).is_some();
            let has_room = state.held + state.closing < state.share && !is_full;
            // Another connection of a tenant that has some displaces only what is worth less.
            let bound = (pool.open() > 0).then_some(worth);
            // Others would take the place of a connection that gave way.
            let is_contended = state.contended.refuses(pool.target.address(), now).is_some();
            let spared = Some(self.settings.youngest);
            let victim = if has_room || is_contended { None } else { state.victim(now, spared, bound) };
            if !has_room && victim.is_none() {
                bound?;
                state.queue.stand_aside(&pool);
                continue;
            }
            if let Err(wait) = state.may_open() {
                self.dispatch_after(state, wait);
                return None;
            }
            let replaced = match victim {
                None => None,
                Some(victim) => {
                    // Its tenant may have taken it meanwhile.
                    let Some(live) = state.take_from(&victim, now, spared) else { continue };
                    self.metrics.closed(Closed::Replaced);
                    Some(live)
                }
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
}

impl State {
    /// One connection less of this pool.
    fn release(&mut self, pool: &TenantPool) {
        self.held -= 1;
        pool.count_open(-1);
        if pool.open() == 0
            && let Some(pool) = self.members.swap_remove(&key(pool))
        {
            // With none it stands before those that have some.
            self.queue.stand_again(&pool);
        }
    }

    /// Takes the pool out of the queue, and counts a connection for it, which exists from now on as far as its URL is concerned.
    fn grant_to(&mut self, pool: Arc<TenantPool>, replaced: Option<Live>) -> Grant {
        self.queue.leave(&pool);
        self.away.probe(pool.target.address());
        self.full(replaced.is_none()).probe(pool.target.address());
        self.held += 1;
        self.opening += 1;
        pool.count_open(1);
        TenantPool::begin_opening(&mut pool.state());
        self.members.insert(key(&pool), Arc::clone(&pool));
        let dialled = pool.begin_dialling();
        Grant { pool, replaced, dialled }
    }

    /// What is known of addresses that had no room: for an additional connection, or for one in the place of another.
    const fn full(&mut self, is_added: bool) -> &mut Aways {
        if is_added { &mut self.full } else { &mut self.contended }
    }

    /// Whether the rate allows another connection now, or when it will.
    fn may_open(&self) -> Result<(), Duration> {
        let Some(rate) = &self.rate else { return Ok(()) };
        rate.check().map_err(|not_until| not_until.wait_time_from(DefaultClock::default().now()))
    }

    /// The pool whose idle connection is worth least of those that are looked at, and less than this.
    fn victim(&mut self, now: Instant, spared: Option<Duration>, bound: Option<f32>) -> Option<Arc<TenantPool>> {
        let (members, begin) = (self.members.len(), self.next_looked_at);
        let end = begin + members.min(LOOKED_AT);
        self.next_looked_at = end.checked_rem(members).unwrap_or(0);
        let looked_at = (begin..end).filter_map(|at| Some(self.members.get_index(at % members)?.1));
        let valued = looked_at.filter_map(|pool| Some((pool.idle_value(now, spared)?, pool)));
        let (value, pool) = valued.min_by(|(one, _), (other, _)| one.total_cmp(other))?;
        bound.is_none_or(|bound| value < bound).then(|| Arc::clone(pool))
    }

    /// Takes away this pool's idle connection that was used longest ago.
    fn take_from(&mut self, pool: &TenantPool, now: Instant, spared: Option<Duration>) -> Option<Live> {
        let live = pool.take_idle(now, spared)?;
        self.release(pool);
        Some(live)
    }
}
