//! One tenant's connections on this node: those that are idle, and the statements that wait for one.
//!
//! A statement takes a connection and gives it back. Whoever waits is served in the order of arrival, in a row by the
//! connections that are there; another one is asked of the server's pool (`server.rs`) when waiting takes longer than
//! connections usually take to come back.

mod back;
mod wait;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tenancy::TenantId;
use tokio::sync::oneshot;

use super::checkout::Checkout;
use super::connection::Connection;
use super::dial::{DialError, Target};
use super::file::OpenFile;
use super::metrics::Closed;
use super::refusal::Refusal;
use super::server::{Place, ServerPool};
use super::usefulness::Usefulness;
use crate::uses::{Use, Uses};

/// Connections of one tenant to its SQLite file at most.
const MOST_TO_A_FILE: u32 = 4;

/// How long a new connection waits for the request that it was opened for, before it gives way to another tenant.
const AWAITED_FOR: Duration = Duration::from_millis(50);

/// A connection between two uses.
pub(super) struct Live {
    pub(super) connection: Connection,
    pub(super) opened: Instant,
    /// When it was begun to be opened.
    pub(super) begun: Instant,
    expires: Instant,
    /// When it was given back last.
    pub(super) used: Instant,
    /// Since when it serves in a row.
    pub(super) in_row_since: Instant,
    /// No statement was sent on it yet.
    pub(super) is_new: bool,
    /// It freed the memory that it can do without since it was used last.
    is_rested: bool,
    /// While it is there, this node dials with its URL.
    dialled: Use,
}

/// Sent to a statement that waits.
type Answer = Result<Checkout, Refusal>;

/// One tenant's pool, of one database URL.
pub(crate) struct TenantPool {
    pub(super) tenant: TenantId,
    pub(super) generation: u64,
    pub(super) target: Target,
    pub(super) server: Arc<ServerPool>,
    /// Connections that the tenant's plan gives it on this node.
    most: AtomicU32,
    /// Connections that hold a permit, and those that are being opened.
    open: AtomicU32,
    pub(super) url: Arc<Uses>,
    pub(super) file: OnceLock<OpenFile>,
    users: Uses,
    is_retired: AtomicBool,
    was_open: AtomicBool,
    state: Mutex<State>,
}

pub(super) struct State {
    /// The one used last is the last.
    idle: Vec<Live>,
    waiting: VecDeque<oneshot::Sender<Answer>>,
    /// Connections that are being opened.
    opening: u32,
    /// Where the pool stands in the server's queue, or aside of it.
    pub(super) place: Option<Place>,
    usefulness: Usefulness,
    /// Connections that were begun before this moment serve no other statement.
    renewed: Option<Instant>,
    /// A dial that failed for a reason of this database's, and until when it answers.
    failed: Option<(Instant, Arc<DialError>)>,
}

impl std::fmt::Debug for TenantPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantPool").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// A pool in a session's hands: it is not closed for as long as this lives.
#[derive(Debug)]
pub(crate) struct PoolUse(pub(super) Arc<TenantPool>);

impl Live {
    /// Whether it may go, where those that were used within this time are spared, and new ones too. Else all may.
    fn may_go(&self, now: Instant, spared: Option<Duration>) -> bool {
        spared.is_none_or(|youngest| {
            let is_awaited = self.is_new && now.saturating_duration_since(self.opened) < AWAITED_FOR;
            !is_awaited && now.saturating_duration_since(self.used) >= youngest
        })
    }

    /// The connection, and the use of its URL that ends with it.
    pub(super) fn into_parts(self) -> (Connection, Use) {
        (self.connection, self.dialled)
    }
}

impl PoolUse {
    /// A connection for one statement or one transaction.
    pub(crate) async fn checkout(&self) -> Result<Checkout, Refusal> {
        self.0.checkout().await
    }

    /// Waits until the tenant has a connection, if it has none.
    pub(super) async fn ready(&self) -> Result<(), Refusal> {
        if self.0.open.load(Ordering::Relaxed) > 0 {
            return Ok(());
        }
        // Given back at once, it is the first to be taken again.
        self.0.checkout().await.map(drop)
    }

    pub(crate) fn is_of_a_file(&self) -> bool {
        self.0.is_of_a_file()
    }
}

impl Drop for PoolUse {
    fn drop(&mut self) {
        self.0.users.leave();
        self.0.close_if_unused();
    }
}

impl TenantPool {
    pub(super) fn new(
        (tenant, generation): (TenantId, u64),
        target: Target,
        server: Arc<ServerPool>,
        url: Arc<Uses>,
    ) -> Self {
        Self {
            tenant,
            generation,
            target,
            server,
            most: AtomicU32::new(1),
            open: AtomicU32::new(0),
            url,
            file: OnceLock::new(),
            users: Uses::default(),
            is_retired: AtomicBool::new(false),
            was_open: AtomicBool::new(false),
            state: Mutex::new(State {
                idle: Vec::new(),
                waiting: VecDeque::new(),
                opening: 0,
                place: None,
                usefulness: Usefulness::new(Instant::now()),
                renewed: None,
                failed: None,
            }),
        }
    }

    /// Begins a use, unless the pool was given up meanwhile. `most` is what the tenant's plan says now.
    pub(super) fn enter(self: &Arc<Self>, most: u32) -> Option<PoolUse> {
        self.users.enter();
        // Its drop closes the pool, should this have been the last user.
        let entered = PoolUse(Arc::clone(self));
        self.most.store(if self.is_of_a_file() { most.min(MOST_TO_A_FILE) } else { most }, Ordering::Relaxed);
        (!self.is_retired.load(Ordering::SeqCst)).then_some(entered)
    }

    /// Whether its file, if it has one, is the one that it has open.
    pub(super) fn is_there(&self, now: Duration) -> bool {
        self.file.get().is_none_or(|file| file.is_there(now))
    }

    /// No new session gets it; the last user closes it, or this if there is none.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
        self.close_if_unused();
    }

    fn close_if_unused(&self) {
        if self.is_unused() {
            let idle = std::mem::take(&mut self.state().idle);
            for live in idle {
                self.server.discard(self, live, Closed::Retired);
            }
        }
    }

    /// Closes what is idle, and what is in use now when it comes back.
    pub(super) fn renew(&self, why: Closed) {
        let idle = {
            let mut state = self.state();
            state.renewed = Some(Instant::now());
            std::mem::take(&mut state.idle)
        };
        for live in idle {
            self.server.discard(self, live, why);
        }
    }

    /// As [`Self::renew`], unless an earlier call already closes connections that were begun at this moment.
    pub(super) fn renew_all_like(&self, begun: Instant, why: Closed) {
        let is_renewed = self.state().renewed.is_some_and(|renewed| begun <= renewed);
        if !is_renewed {
            self.renew(why);
        }
    }

    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::SeqCst)
    }

    /// Whether none of its connections was open before this one is, or could not be.
    pub(super) fn is_first(&self, is_open: bool) -> bool {
        !self.was_open.fetch_or(is_open, Ordering::Relaxed)
    }

    pub(super) fn is_of_a_file(&self) -> bool {
        self.target.path().is_some()
    }

    pub(super) fn is_unused(&self) -> bool {
        self.is_retired.load(Ordering::SeqCst) && !self.users.is_in_use()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed).max(1)
    }

    /// Connections that hold a permit or are being opened. Changes under the server's lock alone.
    pub(super) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn count_open(&self, change: i32) {
        self.open.fetch_add(change.cast_unsigned(), Ordering::Relaxed);
    }

    /// Whether more statements wait than connections are being opened, and the plan allows another.
    pub(super) fn wants_more(&self, state: &mut State) -> bool {
        state.waiting.retain(|waiter| !waiter.is_closed());
        self.open() < self.most() && state.waiting.len() > state.opening as usize
    }

    /// Whether it has fewer connections for its plan than another, and would not have more than that one after taking one from it.
    pub(super) fn is_poorer_than(&self, other: &Self) -> bool {
        let (own, others) = (self.open() + 1, other.open().saturating_sub(1));
        // Own of its plan against the other's of its plan, without a division.
        u64::from(own) * u64::from(other.most()) <= u64::from(others) * u64::from(self.most())
    }

    /// The value of its idle connection to the tenant, none if it has none that may go.
    pub(super) fn idle_value(&self, now: Instant, spared: Option<Duration>) -> Option<f32> {
        let state = self.state();
        if !state.idle.iter().any(|live| live.may_go(now, spared)) {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "a few connections")]
        let open = self.open().max(1) as f32;
        Some(state.usefulness.at(now) / open)
    }

    /// What another connection would be worth to it.
    pub(super) fn value_of_another(&self, state: &State, now: Instant) -> f32 {
        #[allow(clippy::cast_precision_loss, reason = "a few connections")]
        let open = self.open() as f32 + 1.0;
        state.usefulness.at(now) / open
    }

    /// Takes away the idle connection that was used longest ago of those that may go.
    pub(super) fn take_idle(&self, now: Instant, spared: Option<Duration>) -> Option<Live> {
        let mut state = self.state();
        let at = state.idle.iter().position(|live| live.may_go(now, spared))?;
        Some(state.idle.remove(at))
    }

    /// Takes away what has been idle since before this moment, or has lived its time.
    pub(super) fn take_stale(&self, idle_since: Instant, now: Instant) -> Vec<Live> {
        let is_stale = |live: &mut Live| live.used <= idle_since || live.expires <= now;
        self.state().idle.extract_if(.., is_stale).collect()
    }

    /// Takes away all that is idle.
    pub(super) fn take_all_idle(&self) -> Vec<Live> {
        std::mem::take(&mut self.state().idle)
    }

    pub(super) fn begin_opening(state: &mut State) {
        state.opening += 1;
    }

    /// A use of its URL, which lasts as long as the connection that is dialled under it.
    pub(super) fn begin_dialling(&self) -> Use {
        self.url.begin()
    }

    /// Opens a connection.
    pub(super) async fn dial(self: Arc<Self>, dialled: Use) -> Result<Live, Arc<DialError>> {
        let (settings, begun) = (&self.server.settings, Instant::now());
        let dialling = self.target.dial(settings.dial, settings.holder, &self.server.lifeline);
        let connection = dialling.await.map_err(Arc::new)?;
        if let Some(path) = self.target.path()
            && self.file.get().is_none()
        {
            let file = OpenFile::of(path.clone()).map_err(|_| Arc::new(DialError::Unavailable(None)))?;
            let _ = self.file.set(file);
        }
        let now = Instant::now();
        // With jitter, lest all that were opened together end together.
        let expires = now + settings.lifetime.mul_f32(rand::random_range(0.8..=1.0));
        Ok(Live {
            connection,
            opened: now,
            begun,
            expires,
            used: now,
            in_row_since: now,
            is_new: true,
            is_rested: false,
            dialled,
        })
    }

    /// A connection was opened.
    pub(super) fn opened(self: &Arc<Self>, live: Live) {
        {
            let mut state = self.state();
            state.opening = state.opening.saturating_sub(1);
            state.failed = None;
        }
        self.give_back(live);
    }

    /// A connection could not be opened. If the tenant has no other, all that wait are told, and for a moment those that come.
    pub(super) fn failed(&self, refusal: &Refusal, failed_for: Option<Duration>) {
        {
            let mut state = self.state();
            state.opening = state.opening.saturating_sub(1);
            if self.open() > 0 {
                return;
            }
            if let (Some(failed_for), Refusal::NotOpened(error)) = (failed_for, refusal) {
                state.failed = Some((Instant::now() + failed_for, Arc::clone(error)));
            }
        }
        self.refuse_all(refusal);
    }

    /// A connection could not be opened, and is asked for again.
    pub(super) fn not_opened(&self) {
        let mut state = self.state();
        state.opening = state.opening.saturating_sub(1);
    }

    /// Connections that are in use, or were since this moment.
    pub(super) fn count_used_since(&self, since: Instant) -> u32 {
        let unused = self.state().idle.iter().filter(|live| live.used < since).count();
        self.open().saturating_sub(u32::try_from(unused).unwrap_or(u32::MAX))
    }

    pub(super) fn count_idle(&self) -> u32 {
        u32::try_from(self.state().idle.len()).unwrap_or(u32::MAX)
    }

    /// Answers all that wait, and opens nothing.
    pub(super) fn refuse_all(&self, refusal: &Refusal) {
        for waiter in std::mem::take(&mut self.state().waiting) {
            let _ = waiter.send(Err(refusal.clone()));
        }
    }
}
