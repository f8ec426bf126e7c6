//! The model: a dealer, a server, and processes that come, are stopped, go on and die.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::super::*;

const SERVER: &str = "local";

/// How long after the last round trip on its anchor a node opens connections, in ticks.
const SECOND: u64 = 10;
/// How long after it has barred an anchor the dealer waits, in ticks: longer than that.
pub(super) const GRACE: u64 = SECOND + 1;

/// One process, and its sockets on the server.
pub(super) struct Node {
    pub(super) holder: Uuid,
    pub(super) kept: Kept,
    /// The anchor of the newest grant that named one.
    pub(super) anchor: Option<Uuid>,
    /// The anchor whose session the server has.
    pub(super) moored: Option<Uuid>,
    /// When its last round trip began.
    pub(super) proven: Option<u64>,
    pub(super) open: u32,
    wanted: u32,
    is_alive: bool,
    /// It neither sends nor hears, and may go on at any time.
    is_stopped: bool,
}

impl Node {
    fn is_at_work(&self) -> bool {
        self.is_alive && !self.is_stopped
    }

    /// Sockets for tenants that its share allows: the anchor is one of them.
    fn may_have(&self) -> u32 {
        self.kept.connections.saturating_sub(u32::from(self.kept.is_anchored))
    }

    pub(super) fn may_dial(&self, now: u64) -> bool {
        !self.kept.is_anchored || self.proven.is_some_and(|proven| now < proven + SECOND)
    }

    fn sockets(&self) -> u32 {
        self.open + u32::from(self.moored.is_some())
    }

    pub(super) fn hear(&mut self, share: &Share) {
        if self.kept.hear(share)
            && let Some(anchor) = &share.anchor
        {
            self.anchor = Some(anchor.id);
        }
    }

    pub(super) fn report(&self) -> ShareReport {
        self.kept.report(SERVER, self.sockets(), self.wanted)
    }
}

/// What the dealer knows of a holder besides its holding.
#[derive(Default)]
pub(super) struct Watched {
    /// Its anchor, once there is one.
    anchor: Option<Uuid>,
    /// It said that it keeps to one.
    is_anchored: bool,
    /// When all of its anchors were barred.
    barred: Option<u64>,
}

/// The world of one run.
pub(super) struct World {
    random: StdRng,
    budget: u32,
    pub(super) nodes: Vec<Node>,
    pub(super) holdings: Vec<Holding>,
    watched: BTreeMap<Uuid, Watched>,
    /// Anchors that the server lets in.
    roles: BTreeSet<Uuid>,
    to_dealer: Vec<(Uuid, ShareReport)>,
    pub(super) to_nodes: Vec<(Uuid, Share)>,
    born: u128,
    pub(super) now: u64,
    /// How often a share was freed of a process that was still there.
    pub(super) freed: u32,
}

impl World {
    pub(super) fn new(seed: u64, budget: u32, nodes: usize) -> Self {
        let mut world = Self {
            random: StdRng::seed_from_u64(seed),
            budget,
            nodes: Vec::new(),
            holdings: Vec::new(),
            watched: BTreeMap::new(),
            roles: BTreeSet::new(),
            to_dealer: Vec::new(),
            to_nodes: Vec::new(),
            born: 0,
            now: 0,
            freed: 0,
        };
        for _ in 0..nodes {
            world.join();
        }
        world
    }

    fn join(&mut self) {
        self.born += 1;
        self.nodes.push(Node {
            holder: Uuid::from_u128(self.born),
            kept: Kept::default(),
            anchor: None,
            moored: None,
            proven: None,
            open: 0,
            wanted: 1,
            is_alive: true,
            is_stopped: false,
        });
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// One event: any message, any socket, any death.
    pub(super) fn step(&mut self) {
        self.now += u64::from(self.chance(30));
        let at = self.random.random_range(0..self.nodes.len());
        match self.random.random_range(0..130) {
            // A node says where it is; a message may be there twice.
            0..=19 if self.nodes[at].is_at_work() => {
                let report = (self.nodes[at].holder, self.nodes[at].report());
                if self.chance(20) {
                    self.to_dealer.push(report.clone());
                }
                self.to_dealer.push(report);
            }
            // Any message arrives, in any order, or is lost.
            20..=44 if !self.to_dealer.is_empty() => {
                let message = self.random.random_range(0..self.to_dealer.len());
                let (holder, report) = self.to_dealer.swap_remove(message);
                if !self.chance(15) {
                    self.dealer_hears(holder, &report);
                }
            }
            45..=64 if !self.to_nodes.is_empty() => {
                let message = self.random.random_range(0..self.to_nodes.len());
                let (holder, share) = self.to_nodes.swap_remove(message);
                if !self.chance(15)
                    && let Some(node) = self.nodes.iter_mut().find(|node| node.holder == holder && node.is_at_work())
                {
                    node.hear(&share);
                }
            }
            // A socket opens, if the node's share and its anchor allow it, or one closes.
            65..=84 => {
                let (now, node) = (self.now, &mut self.nodes[at]);
                if node.is_at_work() && node.may_dial(now) && node.open < node.may_have() {
                    node.open += 1;
                }
            }
            85..=92 => self.nodes[at].open = self.nodes[at].open.saturating_sub(1),
            93..=95 => self.nodes[at].wanted = self.random.random_range(0..=self.budget),
            // A process dies; the server ends its sockets one by one, and another takes its place.
            96 => {
                self.nodes[at].is_alive = false;
                if self.nodes.iter().filter(|node| node.is_alive).count() < 3 {
                    self.join();
                }
            }
            97 => self.nodes[at].is_stopped = !self.nodes[at].is_stopped,
            // Its anchor begins, is heard from, or ends, for whatever reason.
            98..=103 => {
                let node = &mut self.nodes[at];
                if node.is_at_work() && node.moored.is_none() && node.sockets() < node.kept.connections {
                    node.moored = node.anchor.filter(|anchor| self.roles.contains(anchor));
                }
            }
            104..=117 => {
                let (now, node) = (self.now, &mut self.nodes[at]);
                if node.is_at_work() && node.moored.is_some() {
                    node.proven = Some(now);
                }
            }
            118..=120 => self.nodes[at].moored = None,
            // The dealer looks at the server. Whether it has heard the holder of late makes no difference to the bound.
            _ => self.look(at),
        }
    }

    /// The dealer looks at what the server has of a holder.
    pub(super) fn look(&mut self, at: usize) {
        let node = &self.nodes[at];
        let (holder, sessions) = (node.holder, node.open);
        if node.moored.is_some() {
            return;
        }
        let watched = self.watched.entry(holder).or_default();
        let Some(holding) = self.holdings.iter_mut().find(|holding| holding.holder == holder) else { return };
        if !watched.is_anchored {
            // Such a one is gone only when it is dead.
            if !node.is_alive && sessions == 0 {
                self.forget(holder);
            }
            return;
        }
        if !holding.is_fenced {
            holding.is_fenced = true;
            if let Some(anchor) = watched.anchor.take() {
                self.roles.remove(&anchor);
            }
            watched.barred = Some(self.now);
        } else if watched.barred.is_some_and(|barred| self.now >= barred + GRACE) {
            self.freed += u32::from(node.is_alive && holding.held > sessions);
            holding.shrink(sessions);
            if sessions == 0 && !node.is_alive {
                self.forget(holder);
            }
            self.deal();
        }
    }

    fn forget(&mut self, holder: Uuid) {
        self.holdings.retain(|holding| holding.holder != holder);
        self.nodes.retain(|node| node.holder != holder);
        self.to_dealer.retain(|(from, _)| *from != holder);
        if self.nodes.is_empty() {
            self.join();
        }
        self.deal();
    }

    pub(super) fn dealer_hears(&mut self, holder: Uuid, report: &ShareReport) {
        let watched = self.watched.entry(holder).or_default();
        watched.is_anchored |= report.is_anchored;
        let known = self.holdings.iter_mut().find(|holding| holding.holder == holder);
        if known.as_ref().is_some_and(|holding| holding.is_fenced) {
            watched.barred = None;
        }
        match known {
            Some(holding) => {
                holding.hear(report);
            }
            None => self.holdings.push(Holding::new(holder, report)),
        }
        self.deal();
        // Later than its share, as a control plane makes it.
        if self.chance(50) {
            self.make_anchor(holder);
        }
    }

    pub(super) fn make_anchor(&mut self, holder: Uuid) {
        let Some(holding) = self.holdings.iter_mut().find(|holding| holding.holder == holder) else { return };
        let watched = self.watched.entry(holder).or_default();
        if holding.is_fenced || watched.anchor.is_some() {
            return;
        }
        let anchor = Uuid::from_u128(self.random.random());
        self.roles.insert(anchor);
        watched.anchor = Some(anchor);
        holding.is_unknown = true;
        self.deal();
    }

    fn deal(&mut self) {
        let fenced: u32 = self.holdings.iter().filter(|holding| holding.is_fenced).map(|holding| holding.held).sum();
        let (fenced_ones, mut dealt): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.holdings).into_iter().partition(|holding| holding.is_fenced);
        deal(self.budget.saturating_sub(fenced), &mut dealt, self.now);
        for holding in &dealt {
            let anchor = self.watched.get(&holding.holder).and_then(|watched| watched.anchor);
            let anchor = anchor.map(|id| Anchor { id, sealed_url: Sealed::from_stored("sealed") });
            let (server, connect_rate) = (SERVER.to_owned(), 200);
            let share = Share { server, grant: holding.grant, connections: holding.share, connect_rate, anchor };
            self.to_nodes.push((holding.holder, share));
        }
        self.holdings = dealt;
        self.holdings.extend(fenced_ones);
        // What is never delivered is lost.
        while self.to_nodes.len() > 50 {
            let lost = self.random.random_range(0..self.to_nodes.len());
            self.to_nodes.swap_remove(lost);
        }
    }

    pub(super) fn open(&self) -> u32 {
        self.nodes.iter().map(Node::sockets).sum()
    }

    /// Nothing is lost any more, and all that is over a share is closed.
    pub(super) fn calm_down(&mut self) {
        self.to_dealer.clear();
        self.to_nodes.clear();
        for node in &mut self.nodes {
            node.wanted = self.budget;
            node.is_stopped = false;
            if !node.is_alive {
                node.open = 0;
                node.moored = None;
            }
        }
        let alive: Vec<Uuid> = self.nodes.iter().filter(|node| node.is_alive).map(|node| node.holder).collect();
        self.holdings.retain(|holding| alive.contains(&holding.holder));
        self.nodes.retain(|node| node.is_alive);
        for _ in 0..10 {
            for at in 0..self.nodes.len() {
                let node = &mut self.nodes[at];
                node.open = node.open.min(node.may_have());
                if node.kept.connections == 0 {
                    node.moored = None;
                }
                let (holder, report) = (node.holder, node.report());
                self.dealer_hears(holder, &report);
                self.make_anchor(holder);
                for (holder, share) in std::mem::take(&mut self.to_nodes) {
                    if let Some(node) = self.nodes.iter_mut().find(|node| node.holder == holder) {
                        node.hear(&share);
                    }
                }
            }
        }
    }
}
