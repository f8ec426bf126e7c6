//! The anchor of one server: opened once there is a grant that names one, and asked for a sign of life all the time.
//!
//! It holds one of the connections of the share. While it is lost, nothing is opened, and what is idle is closed.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use sea_orm::sqlx::{AssertSqlSafe, Connection as _, Error, PgConnection, query_scalar};
use tenancy::share::{FLOOR, application_name};
use tokio::sync::Notify;

use super::super::anchor::Anchor;
use super::super::dial::DialError;
use super::super::metrics::Closed;
use super::super::refusal::Refusal;
use super::{ServerPool, State};

/// How often the anchor is asked for a sign of life while there are connections.
const BUSY: Duration = Duration::from_millis(300);
/// The same while there are none; within the 10 s after which a server ends an anchor that says nothing.
const QUIET: Duration = Duration::from_secs(3);
/// An anchor that has not answered for this long is given up for another.
const SILENT: Duration = Duration::from_secs(5);
/// How often it is looked whether sessions from before are gone, and how long at most. A server ends one whose client has vanished
/// sooner than that: by its settings (`dial.rs`).
const LOOKED_EVERY: Duration = Duration::from_millis(100);
pub(super) const LEFT_FOR: Duration = Duration::from_secs(12);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// The first pause after an anchor could not be opened, and the longest. It is short: all tenants on the server wait for the
/// anchor, and a retry costs the server one connection for each node.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What is known of the anchor.
#[derive(Default)]
pub(super) struct Mooring {
    /// The newest that was granted.
    pub(super) anchor: Option<Arc<Anchor>>,
    /// Anchor sessions that exist or may still exist on the server.
    pub(super) sockets: u32,
    /// One of the connections that the control plane counts is the anchor's, also while it is lost.
    pub(super) has_place: bool,
    /// When an anchor was given up that did not answer, if no other has answered since.
    lost: Option<Instant>,
    /// It is lost, and what was idle was closed.
    pub(super) is_adrift: bool,
    /// There are connections, or tenants that wait for one.
    is_busy: bool,
}

/// What the task that keeps the anchor waits for.
#[derive(Default)]
pub(super) struct Calls {
    /// The anchor, or the share, is another.
    pub(super) changed: Notify,
    /// A sign of life is needed now.
    pub(super) needed: Notify,
    /// The anchor has answered.
    pub(super) proven: Notify,
}

impl State {
    /// All that may exist on the server. An anchor that is lost keeps its place: its role has one session at a time, and so another
    /// takes the place of the one that is left.
    pub(super) fn sessions(&self, now: Instant) -> u32 {
        let is_left = self.mooring.lost.is_some_and(|lost| now.saturating_duration_since(lost) < LEFT_FOR);
        self.held + self.closing + self.mooring.sockets.max(u32::from(self.mooring.has_place || is_left))
    }
}

impl ServerPool {
    /// Tells the task that keeps the anchor when it must not wait.
    pub(super) fn call_anchor(&self, state: &mut State) {
        if state.mooring.anchor.is_none() {
            return;
        }
        let is_busy = state.held > 0 || state.queue.len() > 0;
        let was_busy = std::mem::replace(&mut state.mooring.is_busy, is_busy);
        let begins = is_busy && !was_busy;
        let is_missed = state.queue.len() > 0 && !self.lifeline.is_alive();
        // The anchor may be the last connection, and can be closed.
        let is_over = state.granted < FLOOR;
        if begins || is_missed || is_over || state.mooring.sockets == 0 {
            self.calls.needed.notify_one();
        }
    }

    /// Keeps the anchor for as long as there is this pool.
    pub(in super::super) fn moor(self: &Arc<Self>) {
        if !self.is_of_files {
            self.runtime.spawn(keep(Arc::downgrade(self), Arc::clone(&self.calls)));
        }
    }

    /// The anchor to be opened, in the place that is its own or one that is free; nothing if there is none.
    fn begin_anchor(&self) -> Option<Arc<Anchor>> {
        let mut state = self.state();
        let anchor = state.mooring.anchor.clone()?;
        let has_room = state.mooring.has_place || state.held + state.closing < state.granted;
        if state.granted < FLOOR || !has_room {
            return None;
        }
        state.mooring.has_place = true;
        state.mooring.sockets += 1;
        // If the server is known to be away, requests are refused during this attempt, too.
        state.away.probe(&anchor.address);
        Some(anchor)
    }

    /// The server's side of an anchor is gone.
    fn anchor_is_closed(&self, anchor: &Anchor, why: Closed) {
        let mut state = self.state();
        state.mooring.sockets -= 1;
        state.away.was_not_tried(&anchor.address);
        if why == Closed::Broken {
            state.mooring.lost = Some(Instant::now());
        }
        self.settle(&mut state);
    }

    /// Waits until the server has no more sessions of this node than the node knows of. Where the network was gone, it may not have heard
    /// of their ends, and what is opened beside them is more than this node's share. Answers whether the anchor answered in time.
    async fn until_none_is_left(&self, session: &mut PgConnection, anchor: &Anchor) -> bool {
        let name = application_name(self.settings.holder);
        // Generated by us: no quote is in the name.
        let count = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
        let (begun, mut is_told) = (Instant::now(), false);
        // A share that is taken back is given up at once.
        while self.keeps(anchor).is_some() {
            let known = self.known();
            let counted = query_scalar::<_, i64>(AssertSqlSafe(count.as_str())).fetch_one(&mut *session);
            let there_are = match tokio::time::timeout(SILENT, counted).await {
                Ok(Ok(there_are)) => there_are,
                Ok(Err(error)) => {
                    tracing::warn!(server = &*self.name, %error, "could not look for sessions that are left");
                    // A server that answers, and does not let it look.
                    return matches!(error, Error::Database(_));
                }
                Err(_) => return false,
            };
            if there_are <= known.max(self.known()).into() {
                return true;
            }
            let is_over = begun.elapsed() >= LEFT_FOR;
            if is_over || !std::mem::replace(&mut is_told, true) {
                let what = if is_over { "waited for no longer" } else { "nothing is opened until they end" };
                tracing::warn!(
                    server = &*self.name,
                    there_are,
                    known,
                    "sessions of this node are left on the server: {what}"
                );
            }
            if is_over {
                return true;
            }
            tokio::time::sleep(LOOKED_EVERY).await;
        }
        true
    }

    /// Tenants' connections that this node has on the server, and those that end there for sure.
    fn known(&self) -> u32 {
        let state = self.state();
        state.held + state.closing - state.left
    }

    /// How often this anchor is asked for a sign of life; nothing if it is kept no longer.
    fn keeps(&self, anchor: &Anchor) -> Option<Duration> {
        let state = self.state();
        // The anchor is closed last: its answers show that the server has heard of the other ends.
        let is_of_use = state.granted >= FLOOR || state.held + state.closing > 0;
        let is_kept = is_of_use && state.mooring.anchor.as_ref().is_some_and(|now| now.id == anchor.id);
        let is_busy = state.held > 0 || state.queue.len() > 0;
        is_kept.then_some(if is_busy { BUSY } else { QUIET })
    }

    /// The anchor answered.
    fn is_moored(self: &Arc<Self>, anchor: &Anchor, begun: Instant, is_first: bool) {
        let was_alive = self.lifeline.is_alive();
        self.lifeline.prove(begun);
        self.calls.proven.notify_waiters();
        if !self.lifeline.is_alive() {
            return;
        }
        {
            let mut state = self.state();
            let was_adrift = std::mem::take(&mut state.mooring.is_adrift);
            if !is_first && !was_adrift && was_alive {
                return;
            }
            state.mooring.lost = None;
            state.away.is_back(&anchor.address);
            self.settle(&mut state);
        }
        self.dispatch(Instant::now());
    }

    /// The anchor could not be opened: that says of the server what a tenant's failed dial says.
    fn not_moored(&self, anchor: &Anchor, error: DialError, is_first: bool) {
        // The anchor before it may only be ending. Requests that wait now wait for the next attempt.
        match error {
            DialError::LimitReached(_) => return,
            DialError::ServerFull(_) if is_first => return,
            _ => {}
        }
        let error = Arc::new(error);
        let refused = {
            let mut state = self.state();
            state.away.failed(&anchor.address, &error, Instant::now());
            let refused = state.queue.take_all_of(&anchor.address);
            self.settle(&mut state);
            refused
        };
        let refusal = Refusal::NotOpened(error);
        for pool in refused.iter().filter(|pool| pool.open() == 0) {
            pool.refuse_all(&refusal);
        }
    }

    /// Closes what is idle while the anchor is lost.
    pub(super) fn drift(self: &Arc<Self>) {
        let members: Vec<_> = {
            let mut state = self.state();
            if self.lifeline.is_alive() {
                return;
            }
            state.mooring.is_adrift = true;
            self.settle(&mut state);
            state.members.values().cloned().collect()
        };
        for pool in members {
            for live in pool.take_all_idle() {
                self.discard(&pool, live, Closed::Adrift);
            }
        }
    }

    /// Holds an open anchor until it is lost or is not kept any more. Answers why it ended, and whether it ever served.
    async fn hold(self: &Arc<Self>, mut connection: PgConnection, anchor: &Anchor) -> (Closed, bool) {
        let mut has_served = false;
        loop {
            let begun = Instant::now();
            let answer = tokio::time::timeout(SILENT, connection.ping()).await;
            if !matches!(answer, Ok(Ok(()))) {
                tracing::warn!(
                    server = &*self.name,
                    "the anchor session is lost: nothing is opened until there is another"
                );
                // The server ended it, or has not heard of the end yet.
                return (if answer.is_ok() { Closed::Spent } else { Closed::Broken }, has_served);
            }
            // It answers again: what was closed meanwhile may still be there.
            let is_back = !self.lifeline.is_alive() && self.state().left > 0;
            if is_back && !self.until_none_is_left(&mut connection, anchor).await {
                return (Closed::Broken, has_served);
            }
            self.is_moored(anchor, begun, !has_served);
            has_served |= self.lifeline.is_alive();
            let Some(every) = self.keeps(anchor) else {
                self.lifeline.cut();
                let goodbye = tokio::time::timeout(GOODBYE, connection.close()).await;
                return (if goodbye.is_ok() { Closed::Spent } else { Closed::Broken }, has_served);
            };
            // One that answered late is asked again at once, so that a busy server does not seem to be lost.
            let pause = if self.lifeline.is_alive() { every.saturating_sub(begun.elapsed()) } else { Duration::ZERO };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.calls.changed.notified() => {}
                () = self.calls.needed.notified() => {}
            }
        }
    }
}

/// What the log says of attempts to open the anchor, by the outcome of the last one that failed. A server may be away for hours:
/// a reason is logged once, and not for each attempt.
struct Told(Option<&'static str>);

impl Told {
    fn failed(&mut self, server: &str, error: &DialError) {
        let source = std::error::Error::source(error).map(tracing::field::display);
        let is_news = self.0.replace(error.outcome()) != Some(error.outcome());
        if is_news {
            tracing::warn!(
                server,
                source,
                "could not open the anchor session, without which nothing is opened; it is tried again until it succeeds: {error}"
            );
        } else {
            tracing::debug!(server, source, "could not open the anchor session: {error}");
        }
    }

    fn opened(&mut self, server: &str) {
        if self.0.take().is_some() {
            tracing::info!(server, "the anchor session is open again");
        }
    }
}

async fn keep(server: Weak<ServerPool>, calls: Arc<Calls>) {
    let (mut pause, mut was_full) = (PAUSES.0, false);
    let mut told = Told(None);
    loop {
        let Some(server) = server.upgrade() else { return };
        let Some(anchor) = server.begin_anchor() else {
            drop(server);
            tokio::select! {
                () = calls.changed.notified() => {}
                () = calls.needed.notified() => {}
            }
            continue;
        };
        let mut is_full = false;
        let (why, has_served) = match anchor.dial(server.settings.dial, server.settings.holder).await {
            Ok(mut connection) => {
                told.opened(&server.name);
                let answers = server.until_none_is_left(&mut connection, &anchor).await;
                if answers { server.hold(connection, &anchor).await } else { (Closed::Broken, false) }
            }
            Err(error) => {
                told.failed(&server.name, &error);
                is_full = matches!(error, DialError::ServerFull(_));
                server.not_moored(&anchor, error, !was_full);
                (Closed::Spent, false)
            }
        };
        was_full = is_full;
        tokio::time::sleep(server.settings.lag(why)).await;
        server.anchor_is_closed(&anchor, why);
        drop(server);
        // A pooler whose server is away lets the anchor in and never answers: then there is a pause.
        if has_served {
            pause = PAUSES.0;
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSES.1),
            () = calls.changed.notified() => pause = PAUSES.0,
        }
    }
}
