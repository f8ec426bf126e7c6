//! How a server's connections keep to this node's share, and what the control plane is told of them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tenancy::share::FLOOR;

use super::super::anchor::Anchor;
use super::super::metrics::Closed;
use super::{ASK_EVERY, Counts, LATELY, ServerPool, State, limiter};

/// The part of a share that is for no tenant: the anchor.
const ANCHOR: u32 = 1;

/// What the control plane granted of one server.
#[derive(Clone, Default)]
pub(in super::super) struct Granted {
    /// Connections, of which the anchor is one.
    pub(in super::super) connections: u32,
    /// Connections that may be opened in a second.
    pub(in super::super) connect_rate: Option<NonZeroU32>,
    /// Without which nothing is opened.
    pub(in super::super) anchor: Option<Arc<Anchor>>,
}

impl ServerPool {
    /// Keeps to another grant from now on. What is idle gives way at once, what is in use when it comes back.
    pub(in super::super) fn set_share(self: &Arc<Self>, granted: &Granted, now: Instant) {
        let mut excess = Vec::new();
        {
            let mut state = self.state();
            let before = state.mooring.anchor.as_ref().map(|anchor| anchor.id);
            if let Some(anchor) = &granted.anchor {
                state.mooring.anchor = Some(Arc::clone(anchor));
            }
            if granted.connections < FLOOR || state.mooring.anchor.as_ref().map(|anchor| anchor.id) != before {
                // What the control plane counts from now on is what is there.
                state.mooring.has_place = false;
            }
            state.granted = granted.connections;
            // The anchor has its part whether it is there or not.
            state.share = granted.connections.saturating_sub(ANCHOR);
            if !self.is_of_files && granted.connect_rate.is_some() && granted.connect_rate != state.connect_rate {
                state.connect_rate = granted.connect_rate;
                state.rate = granted.connect_rate.map(limiter);
            }
            // Before anything is looked at that is idle: what comes back from now on sees it.
            self.settle(&mut state);
            while state.held > state.share
                && let Some(live) = state.victim(now, None, None).and_then(|pool| state.take_from(&pool, now, None))
            {
                state.closing += 1;
                excess.push(live);
            }
            state.owes_word = state.sessions(now) > state.granted;
            self.settle(&mut state);
        }
        for live in excess {
            self.bury(live, Closed::Shrunk);
        }
        self.calls.changed.notify_one();
        self.dispatch(now);
    }

    /// Whether nothing is opened for want of an anchor, and not for want of a share.
    pub(in super::super) fn is_adrift(&self) -> bool {
        !self.lifeline.is_alive() && self.state().granted >= FLOOR
    }

    /// Gives up all that this node has there.
    pub(in super::super) fn give_up(self: &Arc<Self>) {
        self.set_share(&Granted::default(), Instant::now());
    }

    pub(in super::super) fn counts(&self) -> Counts {
        let state = self.state();
        let idle = state.members.values().map(|pool| pool.count_idle()).sum();
        Counts {
            share: state.granted,
            connect_rate: state.connect_rate.map_or(0, NonZeroU32::get),
            held: state.held,
            closing: state.closing,
            anchors: state.mooring.sockets,
            idle,
            waiting: u32::try_from(self.waiting.count()).unwrap_or(u32::MAX),
        }
    }

    /// Connections that exist or may still exist on the server, and how many this node could use.
    pub(in super::super) fn demand(&self, now: Instant) -> (u32, u32) {
        let state = self.state();
        let since = now.checked_sub(LATELY).unwrap_or(self.made);
        let used: u32 = state.members.values().map(|pool| pool.count_used_since(since)).sum();
        let anchor = u32::from(state.mooring.anchor.is_some());
        let wanted = state.queue.len().saturating_add(state.queue.len_aside());
        (state.sessions(now), used.saturating_add(wanted).saturating_add(anchor))
    }

    /// Sees to what follows from a change of the state.
    pub(super) fn settle(&self, state: &mut State) {
        let is_over = state.held > state.share || state.mooring.is_adrift;
        self.is_over_share.store(is_over, Ordering::Relaxed);
        self.starving.store(state.queue.len(), Ordering::Relaxed);
        self.aside.store(state.queue.len_aside(), Ordering::Relaxed);
        if self.is_of_files {
            return;
        }
        self.call_anchor(state);
        let is_full = state.held + state.closing >= state.share;
        let is_given_up = state.owes_word && state.sessions(Instant::now()) <= state.granted;
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
}
