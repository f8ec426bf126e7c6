//! One process in the model, and both sides of its sockets: what it has open and counts, and what the server has of it.

use std::collections::BTreeSet;

use super::super::super::*;

pub(super) const SERVER: &str = "local";

/// How long after the last round trip on its anchor a node opens connections, in ticks.
pub(super) const SECOND: u64 = 10;

/// What the server has of one process.
#[derive(Clone, Copy, Default)]
pub(in super::super) struct Sessions {
    pub(in super::super) of_tenants: u32,
    pub(in super::super) is_anchored: bool,
}

/// One process, and its sockets on the server.
pub(in super::super) struct Node {
    pub(in super::super) holder: Uuid,
    pub(in super::super) kept: Kept,
    /// The anchor of the newest grant that named one.
    pub(in super::super) anchor: Option<Uuid>,
    /// The anchor that it has open.
    pub(in super::super) moored: Option<Uuid>,
    /// When its last round trip began.
    pub(in super::super) proven: Option<u64>,
    /// Sockets for tenants that it has open.
    pub(in super::super) open: u32,
    /// Until when it counts each socket that it has closed.
    closing: Vec<u64>,
    /// Until when it counts the anchor that it has closed.
    unmooring: Option<u64>,
    pub(in super::super) sessions: Sessions,
    pub(super) wanted: u32,
    pub(super) is_alive: bool,
    /// It neither sends nor hears, and may go on at any time.
    pub(super) is_stopped: bool,
}

impl Node {
    pub(super) fn new(holder: Uuid) -> Self {
        Self {
            holder,
            kept: Kept::default(),
            anchor: None,
            moored: None,
            proven: None,
            open: 0,
            closing: Vec::new(),
            unmooring: None,
            sessions: Sessions::default(),
            wanted: 1,
            is_alive: true,
            is_stopped: false,
        }
    }

    pub(super) fn is_at_work(&self) -> bool {
        self.is_alive && !self.is_stopped
    }

    /// Sockets for tenants that its share allows: the anchor is one of them.
    fn may_have(&self) -> u32 {
        self.kept.connections.saturating_sub(1)
    }

    pub(in super::super) fn may_dial(&self, now: u64) -> bool {
        self.proven.is_some_and(|proven| now < proven + SECOND)
    }

    /// Sockets for tenants whose other side may be there.
    fn counted(&self) -> u32 {
        self.open + u32::try_from(self.closing.len()).unwrap()
    }

    fn sockets(&self) -> u32 {
        self.counted() + u32::from(self.moored.is_some() || self.unmooring.is_some())
    }

    /// Sockets for tenants that it may open beside those that it counts.
    pub(super) fn room(&self) -> u32 {
        self.may_have().saturating_sub(self.counted())
    }

    /// Sessions of tenants that live on after the node has closed them.
    pub(in super::super) fn outlived(&self) -> u32 {
        if self.is_alive { self.sessions.of_tenants.saturating_sub(self.open) } else { 0 }
    }

    pub(in super::super) fn hear(&mut self, share: &Share) {
        if self.kept.hear(share)
            && let Some(anchor) = &share.anchor
        {
            self.anchor = Some(anchor.id);
        }
    }

    pub(in super::super) fn report(&self) -> ShareReport {
        self.kept.report(SERVER, self.sockets(), self.wanted)
    }

    pub(super) fn dial(&mut self, sockets: u32) {
        self.open += sockets;
        self.sessions.of_tenants += sockets;
    }

    pub(super) fn close(&mut self, sockets: u32, until: u64) {
        self.open -= sockets;
        self.closing.extend(std::iter::repeat_n(until, sockets as usize));
    }

    /// The anchor begins, if the server lets it in and there is room for it.
    pub(super) fn moor(&mut self, roles: &BTreeSet<Uuid>) {
        let has_room = self.unmooring.is_none() && self.sockets() < self.kept.connections;
        if self.is_at_work() && self.moored.is_none() && has_room {
            self.moored = self.anchor.filter(|anchor| roles.contains(anchor));
            self.sessions.is_anchored |= self.moored.is_some();
        }
    }

    pub(super) fn unmoor(&mut self, until: u64) {
        if self.moored.take().is_some() {
            self.unmooring = Some(until);
        }
    }

    /// The anchor is asked for a sign of life. Where there is none, the node closes its own side.
    pub(super) fn prove(&mut self, now: u64, until: u64) {
        if self.is_at_work() && self.moored.is_some() {
            if self.sessions.is_anchored {
                self.proven = Some(now);
            } else {
                self.unmoor(until);
            }
        }
    }

    /// What it has closed for long enough is gone on the server too, and is not counted any more. What a dead process has left
    /// ends when the server notices.
    pub(super) fn pass(&mut self, now: u64) {
        if !self.is_alive {
            return;
        }
        self.closing.retain(|until| *until > now);
        self.sessions.of_tenants = self.sessions.of_tenants.min(self.counted());
        if self.unmooring.is_some_and(|until| until <= now) {
            self.unmooring = None;
            self.sessions.is_anchored = false;
        }
    }

    /// All that is over its share is closed, and gone on both sides.
    pub(super) fn settle(&mut self) {
        self.open = self.open.min(self.may_have());
        if self.kept.connections == 0 || !self.sessions.is_anchored {
            self.moored = None;
        }
        self.closing.clear();
        self.unmooring = None;
        self.sessions = Sessions { of_tenants: self.open, is_anchored: self.moored.is_some() };
    }
}
